//! Compiles the .proto files in Rust (protox), so that a build needs no protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["mvcc.proto", "auth.proto", "etcd.proto", "health.proto"], ["proto"])?;
    tonic_prost_build::configure().bytes(".").codec_path("crate::codec::Fitting").compile_fds(files)?;
    Ok(())
}
