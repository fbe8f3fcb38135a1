//! The administrator's command line for machines that run Corten.
//!
//! Owns what people type and read. Must never decide anything a machine should decide, and must build and run on any
//! host: nothing here depends on Linux. Start at [`Command`]; each verb has a file in `commands/`.

mod commands;
mod connect;
mod context;
mod output;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Manages machines that run Corten.
#[derive(Debug, Parser)]
#[command(name = "cortenctl", disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags of every verb that talks to a machine.
#[derive(Debug, Clone, Args)]
struct Global {
    /// File with addresses and credentials [default: $CORTENCONFIG, else ~/.corten/config]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Context of that file to use, instead of its current one
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
    /// Machines to talk to, host or host:port
    #[arg(short, long, global = true, value_delimiter = ',', value_name = "ADDR")]
    nodes: Vec<String>,
    /// Machines of which the first that answers is talked to, if no nodes are given
    #[arg(short, long, global = true, value_delimiter = ',', value_name = "ADDR")]
    endpoints: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write new files
    #[command(subcommand)]
    Gen(commands::gen_config::Gen),
    /// Show what this program and the machine run
    Version(commands::version::Version),
    /// List the services of a machine, or start, stop, restart one
    #[command(alias = "service")]
    Services(commands::services::Services),
    /// Show a service's output
    Logs(commands::logs::Logs),
    /// Show the kernel's log
    Dmesg(commands::dmesg::Dmesg),
    /// Restart the machine
    Reboot(commands::power::Reboot),
    /// Switch the machine off
    Shutdown(commands::power::Shutdown),
    /// Write an administrator's kubeconfig
    Kubeconfig(commands::kubeconfig::Kubeconfig),
    /// Put container images into the machine
    #[command(subcommand)]
    Image(commands::image::Image),
    /// Give a machine its configuration
    ApplyConfig(commands::apply_config::ApplyConfig),
    /// Show processes with their resident memory
    Processes(commands::processes::Processes),
    /// Show when each stage of the boot was done
    BootReport(commands::boot_report::BootReport),
    /// Look after the cluster store
    #[command(subcommand)]
    Store(commands::store::Store),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            return ExitCode::from(2);
        }
        Err(error) if error.use_stderr() => {
            // The first line says what is wrong; the usage that follows only hides it.
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
            let missing: Vec<&str> = text.lines().skip(1).take_while(|l| l.starts_with("  ")).map(str::trim).collect();
            eprintln!("cortenctl: {line} {}(see --help)", missing.iter().map(|m| format!("{m} ")).collect::<String>());
            return ExitCode::from(2);
        }
        Err(help) => {
            let _ = help.print();
            return ExitCode::SUCCESS;
        }
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cortenctl: {}", output::one_line(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    connect::install_provider();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(dispatch(cli.command, &cli.global))
}

async fn dispatch(command: Command, global: &Global) -> anyhow::Result<()> {
    match command {
        Command::Gen(gen_config) => commands::gen_config::run(gen_config),
        Command::Version(args) => commands::version::run(args, global).await,
        Command::Services(args) => commands::services::run(args, global).await,
        Command::Logs(args) => commands::logs::run(args, global).await,
        Command::Dmesg(args) => commands::dmesg::run(args, global).await,
        Command::Reboot(_) => commands::power::reboot(global).await,
        Command::Shutdown(_) => commands::power::shutdown(global).await,
        Command::Kubeconfig(args) => commands::kubeconfig::run(args, global).await,
        Command::Image(args) => commands::image::run(args, global).await,
        Command::ApplyConfig(args) => commands::apply_config::run(args, global).await,
        Command::Processes(args) => commands::processes::run(args, global).await,
        Command::BootReport(args) => commands::boot_report::run(args, global).await,
        Command::Store(args) => commands::store::run(args, global).await,
    }
}
