//! The first process of a test machine, and the way into it: see `e2e::machine`.

fn main() -> std::process::ExitCode {
    match e2e::machine::main() {
        Ok(code) => std::process::ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(e) => {
            eprintln!("machine: {e:#}");
            std::process::ExitCode::from(125)
        }
    }
}
