#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| culvert_fuzz::decoders::http_head(data));
