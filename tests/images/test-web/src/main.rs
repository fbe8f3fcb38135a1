//! The only program of the image that tests run in pods: a small web server, and the client tools a test needs inside a pod.
//!
//! Owns: nothing. Must never: need a file at run time, or become part of the OS image. It links statically
//! and needs no file in its image; that is also why it resolves names itself ([`dns`]): glibc's resolver loads libraries.

mod dns;
mod http;
mod node;

use std::process::ExitCode;

const USAGE: &str = "usage: test-web serve [--port N] [--text TEXT]   answer GET / with the host name (or TEXT)
       test-web get URL                          print the body; exit code 1 unless the status is 2xx
       test-web resolve NAME                     print the addresses, one per line
       test-web sleep                            wait for SIGTERM
       test-web caught                           wait for a signal and leave its name as the termination message
       test-web shout                            write lines without end, a megabyte a second
       test-web hoard PATH MIB                   write a file of that size, and wait
       test-web crowd                            start threads until there may be no more, say how many, and wait
       test-web env [NAME]                       print one or all environment variables
       test-web cat PATH                         print a file
       test-web write PATH TEXT                  write a file
       test-web exit CODE                        end with this code
privileged, in the node's process and network namespaces:
       test-web node content                     print what the node holds, a line each
       test-web node kill NAME                   kill its processes of this name
       test-web node strike VICTIM MS NUMBER     kill a process of this name, or one shim of a CHURN pod, after a while
       test-web node fill FOLDER SECONDS         fill a disk to the last byte for a while";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(code) => code,
        Err(why) => {
            eprintln!("test-web: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<ExitCode, String> {
    match words {
        [] => http::serve(8080, None).map(|()| ExitCode::SUCCESS),
        ["serve", options @ ..] => {
            let port =
                option(options, "--port")?.map_or(Ok(8080), |p| p.parse().map_err(|e| format!("--port {p}: {e}")))?;
            http::serve(port, option(options, "--text")?).map(|()| ExitCode::SUCCESS)
        }
        ["get", url] => {
            let (status, body) = http::get(url)?;
            print_bytes(&body)?;
            if (200..300).contains(&status) { Ok(ExitCode::SUCCESS) } else { Err(format!("{url}: status {status}")) }
        }
        ["resolve", name] => {
            let addresses = dns::resolve(name)?;
            addresses.iter().for_each(|address| println!("{address}"));
            Ok(ExitCode::SUCCESS)
        }
        ["sleep"] => loop {
            // As PID 1 of a container a signal without a handler is ignored; the runtime's SIGKILL ends it after the grace time.
            std::thread::park();
        },
        ["shout"] => loop {
            let line = [b'a'; 1023];
            for _ in 0..1024 {
                print_bytes(&line).and_then(|()| print_bytes(b"\n"))?;
            }
            std::thread::sleep(std::time::Duration::from_secs(1));
        },
        ["hoard", path, size] => {
            let size: usize = size.parse().map_err(|e| format!("{size}: {e}"))?;
            std::fs::write(path, vec![b'x'; size << 20]).map_err(|e| format!("{path}: {e}"))?;
            run(&["sleep"])
        }
        ["crowd"] => {
            let waits = || std::thread::Builder::new().stack_size(1 << 14).spawn(|| run(&["sleep"]));
            let crowd: Vec<_> = std::iter::from_fn(|| waits().ok()).collect();
            println!("{}", crowd.len());
            run(&["sleep"])
        }
        ["caught"] => {
            let all = nix::sys::signal::SigSet::all();
            all.thread_block().map_err(|e| e.to_string())?;
            let signal = all.wait().map_err(|e| e.to_string())?;
            std::fs::write("/dev/termination-log", signal.as_str()).map_err(|e| e.to_string())?;
            Ok(ExitCode::SUCCESS)
        }
        ["env"] => {
            std::env::vars().for_each(|(name, value)| println!("{name}={value}"));
            Ok(ExitCode::SUCCESS)
        }
        ["env", name] => {
            println!("{}", std::env::var(name).map_err(|e| format!("{name}: {e}"))?);
            Ok(ExitCode::SUCCESS)
        }
        ["cat", path] => {
            print_bytes(&std::fs::read(path).map_err(|e| format!("{path}: {e}"))?)?;
            Ok(ExitCode::SUCCESS)
        }
        ["write", path, text] => {
            std::fs::write(path, text).map_err(|e| format!("{path}: {e}"))?;
            Ok(ExitCode::SUCCESS)
        }
        ["exit", code] => code.parse::<u8>().map(ExitCode::from).map_err(|e| format!("{code}: {e}")),
        ["node", words @ ..] => node(words).map(|()| ExitCode::SUCCESS),
        _ => Err(USAGE.to_owned()),
    }
}

fn node(words: &[&str]) -> Result<(), String> {
    match words {
        ["content"] => {
            node::content()?.iter().for_each(|line| println!("{line}"));
            Ok(())
        }
        ["kill", name] => node::kill(name),
        ["strike", victim, delay, which] => node::strike(victim, delay, which),
        ["fill", folder, seconds] => node::fill(folder, seconds),
        ["filler", folder, seconds] => node::filler(folder, seconds),
        _ => Err(USAGE.to_owned()),
    }
}

fn option<'a>(options: &[&'a str], name: &str) -> Result<Option<&'a str>, String> {
    for (index, word) in options.iter().enumerate() {
        if let Some(value) = word.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
            return Ok(Some(value));
        }
        if *word == name {
            return options.get(index + 1).copied().map(Some).ok_or_else(|| format!("{name} needs a value"));
        }
    }
    Ok(None)
}

fn print_bytes(bytes: &[u8]) -> Result<(), String> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|e| e.to_string())
}
