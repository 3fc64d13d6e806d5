//! What a process holds and takes, as the kernel counts it.

use std::{fs, time::Duration};

use nix::unistd::{SysconfVar, sysconf};

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

/// What a process has of what runs out, beside memory.
#[derive(Debug, Clone, Copy)]
pub struct Handles {
    /// Open files and connections.
    pub descriptors: usize,
    /// Threads.
    pub threads: usize,
}

impl Handles {
    pub(crate) fn of_process(pid: u32) -> Self {
        let entries = |folder: &str| fs::read_dir(format!("/proc/{pid}/{folder}")).expect("the process runs").count();
        Self { descriptors: entries("fd"), threads: entries("task") }
    }
}

/// The processor time of a process, in user and kernel mode.
pub(crate) fn processor_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    // The second field is the name in brackets, which may hold anything; these are the 14th and the 15th.
    let (_, fields) = stat.rsplit_once(')').expect("Linux names the process");
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    let a_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().expect("Linux has a clock tick");
    Duration::from_secs_f64(ticks as f64 / a_second as f64)
}
