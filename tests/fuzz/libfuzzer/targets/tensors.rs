#![no_main]

libfuzzer_sys::fuzz_target!(init: chorale_fuzz::watch_panics(), |input: &[u8]| chorale_fuzz::tensors(input));
