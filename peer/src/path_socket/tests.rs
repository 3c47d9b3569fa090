mod endpoints;
mod fake;
mod receiving;
mod sending;
