//! kubectl, verb by verb, as people and their scripts call it: `session.txt` is a session in a shell. No kubelet and no controller is there; what they
//! would do is patched in.
//!
//! Of `session.txt`: `$ COMMAND` is to succeed and `! COMMAND` to fail; lines that begin with two spaces continue it. `> TEXT` is a part of what it says
//! on both of its streams, `- TEXT` is none. Everything else is a comment.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::bench::stack::Stack;

const SESSION: &str = include_str!("session.txt");

/// A command of the session.
#[derive(Debug, Default, PartialEq, Eq)]
struct Step {
    command: String,
    fails: bool,
    says: Vec<String>,
    says_not: Vec<String>,
}

pub async fn run(stack: Stack) -> Result<()> {
    // It writes the kubeconfig.
    stack.client()?;
    let folder = stack.path("");
    let steps = parse(SESSION);
    println!("  {} commands", steps.len());
    tokio::task::block_in_place(|| steps.iter().try_for_each(|step| one(step, &folder)))
}

fn one(step: &Step, folder: &Path) -> Result<()> {
    let output = Command::new("sh")
        .arg("-c")
        .arg(format!("{{ {}\n}} 2>&1", step.command))
        .current_dir(folder)
        // Its caches are kept there too.
        .env("HOME", folder)
        .env("KUBECONFIG", folder.join("admin.conf"))
        .output()
        .context("sh")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let what = || format!("{}\n{}{}", step.command, said, String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success() != step.fails, "{}: {}", output.status, what());
    for part in &step.says {
        ensure!(said.contains(part), "does not say {part:?}: {}", what());
    }
    for part in &step.says_not {
        ensure!(!said.contains(part), "says {part:?}: {}", what());
    }
    Ok(())
}

fn parse(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in text.lines() {
        let (mark, rest) = line.split_at_checked(2).unwrap_or((line, ""));
        let last = steps.last_mut();
        match (mark, last) {
            ("$ " | "! ", _) => {
                steps.push(Step { command: rest.to_owned(), fails: mark == "! ", ..Step::default() });
            }
            ("  ", Some(step)) => step.command.extend(["\n", rest]),
            ("> ", Some(step)) => step.says.push(rest.to_owned()),
            ("- ", Some(step)) => step.says_not.push(rest.to_owned()),
            _ => {}
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session() {
        let text = "About it\n$ one <<E\n  a: b\n  E\n> yes\n- no\n\n! two\n";
        let one = Step {
            command: "one <<E\na: b\nE".into(),
            fails: false,
            says: vec!["yes".into()],
            says_not: vec!["no".into()],
        };
        assert_eq!(parse(text), [one, Step { command: "two".into(), fails: true, ..Step::default() }]);
        assert!(parse(SESSION).len() > 100);
    }
}
