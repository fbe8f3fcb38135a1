//! `cargo up` and `cargo down`, and the helper processes of the namespace driver.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use qemu::DriverName;
use qemu::drivers::namespace::node;

/// Test clusters on this machine.
#[derive(Parser)]
#[command(name = "cargo", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Builds everything, boots a cluster and prints its kubeconfig.
    Up {
        /// The cluster's name.
        #[arg(long, default_value = "dev")]
        name: String,
        /// How its nodes run.
        #[arg(long, value_enum, default_value = "qemu")]
        driver: DriverName,
        /// How many nodes it has.
        #[arg(long, default_value_t = 1)]
        nodes: u8,
    },
    /// Removes a cluster.
    Down {
        /// The cluster's name.
        #[arg(long, default_value = "dev")]
        name: String,
    },
    /// A node of the namespace driver, seen from its host.
    #[command(hide = true)]
    NamespaceNode(node::Arguments),
    /// A node of the namespace driver, from inside its namespaces.
    #[command(hide = true)]
    NamespaceInit(node::Arguments),
    /// Loopback ports of the namespace driver.
    #[command(hide = true)]
    Forward {
        /// The network namespace of the targets.
        #[arg(long)]
        namespace: PathBuf,
        /// `port=address:port`, more than once.
        #[arg(long, value_parser = parse_forward)]
        map: Vec<(u16, SocketAddrV4)>,
    },
}

fn parse_forward(text: &str) -> Result<(u16, SocketAddrV4), String> {
    let (port, target) = text.split_once('=').ok_or("must be port=address:port")?;
    let target: SocketAddrV4 = target.parse().map_err(|_| "must be port=address:port")?;
    if *target.ip() == Ipv4Addr::UNSPECIFIED {
        return Err("the target needs an address".to_owned());
    }
    Ok((port.parse().map_err(|_| "must be port=address:port")?, target))
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Up { name, driver, nodes } => qemu::up::up(&name, driver, nodes).map(drop),
        Command::Down { name } => qemu::down::down(&name).map(|removed| {
            println!(
                "{}",
                if removed { format!("cluster {name} is removed") } else { format!("there is no cluster {name}") }
            );
        }),
        Command::NamespaceNode(arguments) => node::host_side(&arguments),
        Command::NamespaceInit(arguments) => node::inside(&arguments),
        Command::Forward { namespace, map } => qemu::forward::run(&namespace, &map),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
