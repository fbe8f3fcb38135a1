//! Compiles the protocol between members in Rust (protox), so that a build needs no protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["peer.proto"], ["proto"])?;
    tonic_prost_build::configure().bytes(".").codec_path("store_api::codec::Fitting").compile_fds(files)?;
    Ok(())
}
