//! What a process holds, as the kernel counts it.

use std::fs;

/// Bytes in a mebibyte.
pub const MIB: u64 = 1024 * 1024;

/// The memory of a process, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Resident now.
    pub resident: u64,
    /// The most that was ever resident.
    pub peak: u64,
}

impl Memory {
    pub(crate) fn of_process(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
        let bytes = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("Linux reports memory");
            let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("memory is a number of kB");
            kibibytes * 1024
        };
        Self { resident: bytes("VmRSS:"), peak: bytes("VmHWM:") }
    }
}
