#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::http::http_head(data));
