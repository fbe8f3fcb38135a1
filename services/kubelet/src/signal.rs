//! The signal with which a container is asked to end (`lifecycle.stopSignal`, KEP-4960): the API's names, the runtime's and
//! the kernel's numbers. Pure.
//!
//! ```text
//! API         runtime          kernel (signal(7))
//! SIGUSR1     SIGUSR1          10
//! SIGRTMIN+3  SIGRTMINPLUS3    37
//! ```

use cri_api::v1;
use nix::sys::signal::Signal;

/// The first real-time signal that programs may use: the C library keeps the two below it.
const RT_MIN: i32 = 34;
const RT_MAX: i32 = 64;

/// The runtime's number of an API name.
///
/// # Errors
/// There is no such signal.
pub fn of_runtime(name: &str) -> Result<i32, String> {
    let theirs = name.replace('+', "PLUS").replace('-', "MINUS");
    let known = v1::Signal::from_str_name(&theirs).filter(|s| *s != v1::Signal::RuntimeDefault);
    known.map(i32::from).ok_or_else(|| format!("lifecycle.stopSignal: unknown signal {name:?}"))
}

/// The API's name of a signal of the runtime; nothing if the runtime does not say.
pub fn name(number: i32) -> Option<String> {
    let known = v1::Signal::try_from(number).ok().filter(|s| *s != v1::Signal::RuntimeDefault)?;
    Some(known.as_str_name().replace("PLUS", "+").replace("MINUS", "-"))
}

/// The kernel's number of an API name.
pub fn of_kernel(name: &str) -> Option<i32> {
    if let Some(rest) = name.strip_prefix("SIGRTMIN") {
        return rest.strip_prefix('+').map_or(Some(0), |n| n.parse().ok()).map(|n: i32| RT_MIN + n);
    }
    if let Some(rest) = name.strip_prefix("SIGRTMAX") {
        return rest.strip_prefix('-').map_or(Some(0), |n| n.parse().ok()).map(|n: i32| RT_MAX - n);
    }
    let usual = match name {
        "SIGCLD" => "SIGCHLD",
        "SIGIOT" => "SIGABRT",
        "SIGPOLL" => "SIGIO",
        name => name,
    };
    usual.parse::<Signal>().ok().map(|signal| signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_of_the_runtime_has_a_name_and_a_number() {
        for number in 1..=65 {
            let name = name(number).unwrap();
            assert_eq!(of_runtime(&name), Ok(number), "{name}");
            assert!(of_kernel(&name).is_some_and(|n| (1..=64).contains(&n)), "{name}");
        }
        assert_eq!(name(0), None);
    }

    #[test]
    fn names_are_those_of_the_api() {
        for (name, runtime, kernel) in [
            ("SIGTERM", 23, 15),
            ("SIGUSR1", 29, 10),
            ("SIGRTMIN", 35, 34),
            ("SIGRTMIN+3", 38, 37),
            ("SIGRTMAX-14", 51, 50),
            ("SIGRTMAX", 65, 64),
            ("SIGPOLL", 15, 29),
        ] {
            assert_eq!((of_runtime(name), of_kernel(name)), (Ok(runtime), Some(kernel)), "{name}");
        }
        for wrong in ["RUNTIME_DEFAULT", "TERM", ""] {
            assert_eq!(of_runtime(wrong), Err(format!("lifecycle.stopSignal: unknown signal {wrong:?}")));
        }
    }
}
