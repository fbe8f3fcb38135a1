//! How the program is linked.

fn main() {
    // A hundred thousand pointers into the program itself (tables of functions and texts) are corrected at every start: as a
    // bitmap their places take 60 KB of each process's memory, as a list 3 MB (DT_RELR; glibc knows it from 2.36 on).
    println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    println!("cargo::rerun-if-changed=build.rs");
}
