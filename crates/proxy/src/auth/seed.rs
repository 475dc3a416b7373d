//! The secret behind the salts that unknown users are shown. Owns the file that keeps it over restarts; refuses to know salts.

use std::path::Path;

use pgteal_wire::cancel::CancelKey;

/// Derived from what stays the same over restarts and is not public: what the file `seed` has, made when there is none.
#[must_use]
pub fn mock_secret(seed: &Path) -> [u8; 32] {
    use sha2::Digest as _;
    let mut hash = sha2::Sha256::new();
    hash.update(b"pgteal mock verifier");
    let kept = std::fs::read(seed).ok().filter(|bytes| bytes.len() >= 32);
    let bytes = kept.unwrap_or_else(|| {
        let fresh: Vec<u8> = CancelKey::mint(32).map(|key| key.secret().to_vec()).unwrap_or_default();
        if let Err(error) = write_private(seed, &fresh) {
            tracing::warn!(path = %seed.display(), %error, "the seed for unknown users cannot be kept");
        }
        fresh
    });
    hash.update(&bytes);
    hash.finalize().into()
}

fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)
}
