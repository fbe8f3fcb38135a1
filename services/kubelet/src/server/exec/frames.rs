//! Requests, frames and results of exec. Pure.

use serde_json::{Value, json};

/// Channel numbers.
pub mod channel {
    /// From the client.
    pub const STDIN: u8 = 0;
    /// To the client.
    pub const STDOUT: u8 = 1;
    /// To the client.
    pub const STDERR: u8 = 2;
    /// The result, to the client.
    pub const ERROR: u8 = 3;
    /// Terminal sizes, from the client.
    pub const RESIZE: u8 = 4;
    /// Closes the channel that its payload names; version 5 only.
    pub const CLOSE: u8 = 255;
}

/// What a client wants to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Which streams it wants.
    pub stdin: bool,
    /// As above.
    pub stdout: bool,
    /// As above.
    pub stderr: bool,
    /// On a terminal.
    pub tty: bool,
}

impl Request {
    /// Reads a query, in the kubelet's own names (`input`, `output`, `error`) or the API's.
    ///
    /// # Errors
    /// No command, or no stream.
    pub fn parse(query: &str) -> Result<Request, String> {
        let mut request = Request::default();
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(value);
            let on = matches!(value.as_str(), "1" | "true");
            match key {
                "command" => request.command.push(value),
                "input" | "stdin" => request.stdin |= on,
                "output" | "stdout" => request.stdout |= on,
                "error" | "stderr" => request.stderr |= on,
                "tty" => request.tty |= on,
                _ => {}
            }
        }
        if request.command.is_empty() {
            return Err("you must specify at least 1 command for the container".into());
        }
        if !(request.stdin || request.stdout || request.stderr) {
            return Err("you must specify at least 1 of stdin, stdout, stderr".into());
        }
        // A terminal has one output.
        request.stderr &= !request.tty;
        Ok(request)
    }
}

/// Percent-decoding, with plus as a blank.
fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let escaped = bytes
            .get(at + 1..at + 3)
            .and_then(|h| std::str::from_utf8(h).ok())
            .and_then(|h| u8::from_str_radix(h, 16).ok());
        match (bytes[at], escaped) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
                continue;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// What a client's message means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// Data for the command.
    Stdin(&'a [u8]),
    /// The terminal's new size.
    Resize {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// No more data will come.
    CloseStdin,
}

impl Input<'_> {
    /// Reads a message.
    pub fn parse(message: &[u8]) -> Option<Input<'_>> {
        let (channel, data) = message.split_first()?;
        match *channel {
            channel::STDIN => Some(Input::Stdin(data)),
            channel::RESIZE => {
                let size: Value = serde_json::from_slice(data).ok()?;
                let number = |field: &str| u32::try_from(size[field].as_u64()?).ok();
                Some(Input::Resize { width: number("Width")?, height: number("Height")? })
            }
            channel::CLOSE if data == [channel::STDIN] => Some(Input::CloseStdin),
            _ => None,
        }
    }
}

/// The `metav1.Status` that ends an exec.
pub fn status(outcome: &Result<u32, String>) -> Value {
    match outcome {
        Ok(0) => json!({"metadata": {}, "status": "Success"}),
        Ok(code) => json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Err(error) => json!({
            "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
            "message": format!("Internal error occurred: error executing command in container: {error}"),
            "details": {"causes": [{"message": format!("error executing command in container: {error}")}]},
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_in_both_spellings() {
        let request =
            Request::parse("command=sh&command=-c&command=echo+a%20b%26&input=1&output=true&error=1").unwrap();
        assert_eq!(request.command, ["sh", "-c", "echo a b&"]);
        assert!(request.stdin && request.stdout && request.stderr && !request.tty);
        let terminal = Request::parse("command=sh&stdin=true&stdout=true&stderr=true&tty=true").unwrap();
        assert!(terminal.tty && !terminal.stderr);
        assert!(Request::parse("stdout=true").is_err());
        assert!(Request::parse("command=ls").is_err());
    }

    #[test]
    fn messages_are_read_by_channel() {
        assert_eq!(Input::parse(b"\x00abc"), Some(Input::Stdin(b"abc")));
        assert_eq!(Input::parse(b"\x04{\"Width\":80,\"Height\":24}"), Some(Input::Resize { width: 80, height: 24 }));
        assert_eq!(Input::parse(&[255, 0]), Some(Input::CloseStdin));
        assert_eq!(Input::parse(&[255, 1]), None);
        assert_eq!(Input::parse(b""), None);
    }

    #[test]
    fn results_carry_the_exit_code() {
        assert_eq!(status(&Ok(0))["status"], "Success");
        let failed = status(&Ok(3));
        assert_eq!(
            (&failed["reason"], &failed["details"]["causes"][0]["message"]),
            (&json!("NonZeroExitCode"), &json!("3"))
        );
        assert_eq!(status(&Err("x".into()))["code"], 500);
    }
}
