//! Real clusters as processes, links that fail, and the tests that need them.
