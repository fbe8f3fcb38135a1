fn main() -> std::process::ExitCode {
    daemon::main("kubelet", 2, |shutdown| kubelet::run(std::env::args().collect(), shutdown))
}
