//! What must hold of patches, ownership, selectors and numbers whatever they are given: tried on what a fixed seed makes, so that a failure comes again.

mod apply;
mod numbers;
mod objects;
mod patches;
mod selectors;

/// The same numbers as in the fuzzers.
#[path = "../../../../../tests/src/random.rs"]
mod random;

use random::Random;

/// Tries something so many times; who fails says with which seed.
fn times(count: u64, what: impl Fn(&mut Random)) {
    struct Seed(u64);
    impl Drop for Seed {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("with seed {}", self.0);
            }
        }
    }
    for seed in 0..count {
        let _named_on_failure = Seed(seed);
        // Neighbouring seeds give neighbouring first numbers otherwise.
        what(&mut Random(Random(seed).next()));
    }
}

/// One of some.
fn one<'t, T>(random: &mut Random, of: &'t [T]) -> &'t T {
    &of[random.below(of.len())]
}
