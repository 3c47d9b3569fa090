#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::client::well_known(data));
