//! Who goes first where cores are scarce: what answers the network, or what computes.

/// By how much a thread that computes gives way, in steps of its niceness: one that answers the network then counts three times
/// as much.
#[cfg(target_os = "linux")]
const GIVE_WAY: i32 = 5;

/// Makes the calling thread, one that computes, give way to those that answer the network: without it, an overloaded replica
/// takes its time even to refuse. Only on Linux, where every thread has a niceness of its own.
pub fn give_way() {
    #[cfg(target_os = "linux")]
    if let Err(error) = nicer() {
        tracing::debug!(%error, "a thread that computes keeps its priority");
    }
}

#[cfg(target_os = "linux")]
fn nicer() -> rustix::io::Result<()> {
    use rustix::process::{getpriority_process, setpriority_process};
    setpriority_process(None, getpriority_process(None)? + GIVE_WAY)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::process::getpriority_process;

    use super::*;

    #[test]
    fn only_the_thread_that_asks_gives_way() {
        let before = getpriority_process(None).unwrap();
        let other = std::thread::spawn(|| {
            give_way();
            getpriority_process(None).unwrap()
        });
        assert_eq!(other.join().unwrap(), (before + GIVE_WAY).min(19));
        assert_eq!(getpriority_process(None).unwrap(), before);
    }
}
