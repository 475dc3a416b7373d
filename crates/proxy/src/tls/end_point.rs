//! The hash of a certificate that SCRAM's channel binding uses (`tls-server-end-point`).
//! Owns which hash that is; refuses to know SCRAM.

use rustls::pki_types::CertificateDer;
use sha2::Digest as _;
use x509_cert::der::asn1::ContextSpecific;
use x509_cert::der::{Decode as _, SliceReader, TagNumber};
use x509_cert::spki::{AlgorithmIdentifierOwned, AlgorithmIdentifierRef};

/// RFC 5929, section 4.1: by the hash of the certificate's signature algorithm, with SHA-256 in place of MD5 and SHA-1. With
/// RSA-PSS that is the hash its parameters name, as `X509_get_signature_info` tells servers and libpq. `None` for
/// algorithms without exactly one hash, such as Ed25519: neither servers nor libpq bind to those.
pub(super) fn end_point_hash(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let parsed = x509_cert::Certificate::from_der(certificate).ok()?;
    Some(match hash_of(&parsed.signature_algorithm)? {
        Hash::Sha224 => sha2::Sha224::digest(certificate).to_vec(),
        Hash::Sha256 => sha2::Sha256::digest(certificate).to_vec(),
        Hash::Sha384 => sha2::Sha384::digest(certificate).to_vec(),
        Hash::Sha512 => sha2::Sha512::digest(certificate).to_vec(),
    })
}

enum Hash {
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

fn hash_of(signature: &AlgorithmIdentifierOwned) -> Option<Hash> {
    Some(match signature.oid.to_string().as_str() {
        // md5, sha1 and sha256 with RSA; ECDSA with SHA-1 and SHA-256
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.1"
        | "1.2.840.10045.4.3.2" => Hash::Sha256,
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Hash::Sha384,
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Hash::Sha512,
        "1.2.840.113549.1.1.14" | "1.2.840.10045.4.3.1" => Hash::Sha224,
        "1.2.840.113549.1.1.10" => return hash_of_pss(signature),
        _ => return None,
    })
}

/// The `hashAlgorithm` of RSASSA-PSS-params (RFC 4055, section 3.1); SHA-1 when it is left out.
fn hash_of_pss(signature: &AlgorithmIdentifierOwned) -> Option<Hash> {
    let params = signature.parameters.as_ref()?;
    let mut reader = SliceReader::new(params.value()).ok()?;
    let named = ContextSpecific::<AlgorithmIdentifierRef<'_>>::decode_explicit(&mut reader, TagNumber::N0);
    let Some(named) = named.ok()? else { return Some(Hash::Sha256) };
    Some(match named.value.oid.to_string().as_str() {
        "1.3.14.3.2.26" | "2.16.840.1.101.3.4.2.1" => Hash::Sha256,
        "2.16.840.1.101.3.4.2.2" => Hash::Sha384,
        "2.16.840.1.101.3.4.2.3" => Hash::Sha512,
        "2.16.840.1.101.3.4.2.4" => Hash::Sha224,
        _ => return None,
    })
}
