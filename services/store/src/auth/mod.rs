//! Who may do what: users, roles, ranges of keys, and tokens, by etcd 3.5's rules.
//!
//! The [`Book`] is part of the state machine: it changes by proposals only, and every change is checked against it once more
//! where it is applied, with the name of who asked for it in the entry. Tokens are no part of it: every member keeps those
//! that were handed out while it ran, and who comes with an older one has to authenticate again.
//!
//! Besides etcd's rules, nobody without a user gets at what etcd's first 3.5 releases left open to everyone: alarms,
//! compaction, leases and the list of members; moving the leader is for administrators. Transactions within transactions
//! are checked like others.

mod book;
mod password;
mod permit;
mod tokens;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use crate::error::Refusal;

pub use book::{Book, Change, ChangeOf, Login, Role, User};
pub use password::{hash, verify};
pub use permit::operation;
pub use tokens::Tokens;

/// Who wants something, as the entry says. An entry without is from a client that said nothing about itself.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Caller {
    /// A client.
    #[prost(message, tag = "9")]
    User(CallingUser),
    /// The store itself, as when a lease ends.
    #[prost(bool, tag = "10")]
    Store(bool),
}

/// A user as of a state of the book.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CallingUser {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The book's revision when it was found out.
    #[prost(uint64, tag = "2")]
    pub revision: u64,
}

/// What a request says about who sent it.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// From [`Auth::log_in`].
    pub token: Option<String>,
    /// Of the client's certificate, where certificates count.
    pub common_name: Option<String>,
    /// It came over the connection for members, so the member that sent it has checked already.
    pub member: bool,
}

/// The book and the tokens, as servers and the state machine share them.
#[derive(Default)]
pub struct Auth {
    enabled: AtomicBool,
    book: RwLock<Book>,
    tokens: Mutex<Tokens>,
}

impl Auth {
    /// Starts with a book and without tokens.
    pub fn new(book: Book) -> Self {
        Auth { enabled: AtomicBool::new(book.enabled), book: RwLock::new(book), tokens: Mutex::default() }
    }

    /// Whether anything is checked.
    pub fn enabled(&self) -> bool {
        self.enabled.load(Ordering::Acquire)
    }

    /// The book as of now.
    pub fn book(&self) -> RwLockReadGuard<'_, Book> {
        self.book.read()
    }

    /// Takes another book's place.
    pub fn replace(&self, book: Book) {
        self.enabled.store(book.enabled, Ordering::Release);
        *self.book.write() = book;
        *self.tokens.lock() = Tokens::default();
    }

    /// Applies a change.
    ///
    /// # Errors
    /// The change is refused, and nothing changed.
    pub fn apply(&self, change: &ChangeOf) -> Result<(), Refusal> {
        let mut book = self.book.write();
        let stale = book.apply(change)?;
        self.enabled.store(book.enabled, Ordering::Release);
        let mut tokens = self.tokens.lock();
        match change {
            ChangeOf::Login(login) => tokens.insert(&login.token, &login.name, Instant::now()),
            ChangeOf::Disable(_) => *tokens = Tokens::default(),
            _ => tokens.forget(&stale),
        }
        Ok(())
    }

    /// Who sent a request; `None` if it does not say, or nobody asks.
    ///
    /// # Errors
    /// The token is unknown to this member.
    pub fn caller(&self, credentials: &Credentials) -> Result<Option<Caller>, Refusal> {
        if credentials.member {
            return Ok(Some(Caller::Store(true)));
        }
        if !self.enabled() {
            return Ok(None);
        }
        let revision = self.book().revision();
        let name = match (&credentials.token, &credentials.common_name) {
            (Some(token), _) => Some(self.tokens.lock().user(token, Instant::now()).ok_or(Refusal::InvalidAuthToken)?),
            (None, name) => name.clone(),
        };
        Ok(name.map(|name| Caller::User(CallingUser { name, revision })))
    }
}

#[cfg(test)]
mod tests;
