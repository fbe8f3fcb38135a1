//! How the binary behind all processes is linked.

/// Ten processes of a node run this one file, and every page that differs between them counts ten times.
///
/// Without position independence the linker knows every address: the tables of pointers (2 MB) need no relocation at start,
/// so they stay pages of the file that all processes share, and the list of relocations (3 MB) is gone. What is given up is
/// that the program's own code lies at another address in every process; libraries, heap and stacks still do.
/// Functions with the same code become one (Rust promises no function an address of its own).
const ARGUMENTS: [&str; 2] = ["-no-pie", "-Wl,--icf=all"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for argument in ARGUMENTS {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}
