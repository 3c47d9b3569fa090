#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::http::http2_head(data));
