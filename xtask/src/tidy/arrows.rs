//! Which crate may depend on which. Owns the table; ARCHITECTURE.md shows it as a picture.

use crate::workspace::Crate;

/// Each crate of the product with the crates it may use. Whoever is not here is not part of the product.
const ALLOWED: [(&str, &[&str]); 8] = [
    ("pgteal", &["pgteal-routers", "pgteal-core", "pgteal-saga", "pgteal-ledger"]),
    ("pgteal-routers", &["pgteal-core"]),
    ("pgteal-core", &["pgteal-postgres", "pgteal-saga"]),
    ("pgteal-postgres", &[]),
    ("pgteal-proxy", &["pgteal-wire"]),
    ("pgteal-wire", &[]),
    ("pgteal-saga", &[]),
    ("pgteal-ledger", &[]),
];

/// Crates for developers: they may use anything, and the product may use them in tests only.
const DEVELOPERS: [&str; 2] = ["pgteal-testkit", "xtask"];

/// The kit serves every crate's tests, so outside its own tests it stands on nothing that could keep it from building.
const KIT: (&str, &[&str]) = ("pgteal-testkit", &["pgteal-ledger"]);

pub(super) fn check(crates: &[Crate]) -> Vec<String> {
    let mut broken = Vec::new();
    for one in crates {
        let allowed = match ALLOWED.iter().chain([&KIT]).find(|(name, _)| *name == one.name) {
            Some((_, allowed)) => *allowed,
            None if DEVELOPERS.contains(&one.name.as_str()) => &[],
            None => {
                broken.push(format!(
                    "crate {} has no place in the picture (xtask/src/tidy/arrows.rs)",
                    one.name
                ));
                continue;
            }
        };
        let developers = DEVELOPERS.contains(&one.name.as_str());
        for arrow in &one.arrows {
            let may = allowed.contains(&arrow.to.as_str())
                || (arrow.dev && (developers || arrow.to == "pgteal-testkit"));
            if !may {
                let kind = if arrow.dev { "use in its tests" } else { "depend on" };
                broken.push(format!("crate {} may not {kind} {}", one.name, arrow.to));
            }
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Arrow;

    #[test]
    fn only_arrows_of_the_picture_pass() {
        let cases = [
            ("pgteal", "pgteal-core", false, true),
            ("pgteal", "pgteal-postgres", false, false),
            ("pgteal", "pgteal-proxy", false, false),
            ("pgteal-core", "pgteal-routers", false, false),
            ("pgteal-wire", "pgteal-testkit", true, true),
            ("pgteal-wire", "pgteal-testkit", false, false),
            ("pgteal-proxy", "pgteal-core", true, false),
            ("pgteal-testkit", "pgteal-core", true, true),
            ("pgteal-testkit", "pgteal-core", false, false),
            ("xtask", "pgteal-core", false, false),
            ("pgteal-new", "pgteal-core", false, false),
        ];
        for (from, to, dev, may) in cases {
            let arrows = vec![Arrow { to: to.into(), dev }];
            let broken = check(&[Crate { name: from.into(), dir: "".into(), arrows }]);
            assert_eq!(broken.is_empty(), may, "{from} -> {to}, dev: {dev}: {broken:?}");
        }
    }
}
