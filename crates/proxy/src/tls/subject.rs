//! The name in a client's certificate.
//! Owns reading it; refuses to know users.

use rustls::pki_types::CertificateDer;
use x509_cert::der::{Decode as _, Tag, Tagged as _};

/// The first common name of the certificate's subject, as servers compare it with the user's name; `None` when there is
/// none, or one with a zero byte in it (CVE-2009-4034).
#[must_use]
pub fn common_name(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let parsed = x509_cert::Certificate::from_der(certificate).ok()?;
    let attributes = parsed.tbs_certificate.subject.0.iter().flat_map(|rdn| rdn.0.iter());
    let mut names = attributes.filter(|attribute| attribute.oid.to_string() == "2.5.4.3");
    let value = &names.next()?.value;
    let text =
        matches!(value.tag(), Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::TeletexString);
    (text && !value.value().contains(&0)).then(|| value.value().to_vec())
}
