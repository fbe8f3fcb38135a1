//! Requests one by one with what upstream is known to answer: those that make little sense, and those whose answer clients look into. The table is
//! `answers.txt`.

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::Method;

use super::session::Session;
use crate::bench::stack::Stack;

const TABLE: &str = include_str!("answers.txt");

pub async fn run(stack: Stack) -> Result<()> {
    let tls = stack.tls_of("root", &["system:masters"])?;
    let mut session = Session::open(stack.api_address(), &tls).await?;
    let mut wrong = Vec::new();
    for line in TABLE.lines() {
        let Some((request, expected)) = line.split_once(" => ").filter(|_| !line.starts_with('#')) else { continue };
        if let Err(error) = one(&mut session, request, expected).await {
            wrong.push(format!("{request}: {error:#}"));
        }
    }
    ensure!(wrong.is_empty(), "{} are not as they should be:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

async fn one(session: &mut Session, request: &str, expected: &str) -> Result<()> {
    let mut words = request.splitn(4, ' ');
    let method: Method = words.next().unwrap_or_default().parse()?;
    let path = words.next().context("a path")?;
    let (media, body) = (words.next().unwrap_or("application/json"), words.next().unwrap_or_default());
    let (status, text) = expected.split_once(' ').context("a status and a text")?;
    // Of a GET the media type is the one that is wanted.
    let header = if method == Method::GET { "accept" } else { "content-type" };
    let body = Bytes::copy_from_slice(body.as_bytes());
    let answer = session.ask_with(method, path, &[(header, media)], body).await?;
    let said = String::from_utf8_lossy(&answer.body);
    let fits = match text.strip_prefix('!') {
        Some(absent) => !said.contains(absent),
        None => said.contains(text),
    };
    ensure!(answer.status.to_string() == status && fits, "{} {said} instead of {expected}", answer.status);
    Ok(())
}
