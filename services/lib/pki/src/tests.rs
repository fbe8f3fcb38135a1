use crate::{
    Ca, CertInfo, Error, IssueRequest, KeyPair, Usage, certificates_from_pem, csr, fingerprint, peer_identity,
    service_account_key,
};

fn request() -> IssueRequest {
    IssueRequest {
        common_name: "system:node:n1".into(),
        organizations: vec!["system:nodes".into()],
        dns_names: vec!["n1".into(), "localhost".into()],
        ips: vec!["10.0.2.15".parse().unwrap(), "fd00::1".parse().unwrap()],
        usage: Usage::Both,
        valid_for_days: 30,
    }
}

#[test]
fn an_issued_certificate_says_what_was_asked() {
    let ca = Ca::from_pem(Ca::generate("kubernetes").unwrap().cert_pem(), "").err().map(|e| matches!(e, Error::Key(_)));
    assert_eq!(ca, Some(true), "an authority without its key is refused");

    let ca = Ca::generate("kubernetes").unwrap();
    let again = Ca::from_pem(ca.cert_pem(), ca.key_pem()).unwrap();
    let issued = again.issue(request()).unwrap();
    let info = CertInfo::from_pem(&issued.cert_pem).unwrap();
    assert_eq!(info.common_name, "system:node:n1");
    assert_eq!(info.organizations, ["system:nodes"]);
    assert_eq!(info.issuer_common_name, "kubernetes");
    assert_eq!(info.dns_names, ["n1", "localhost"]);
    assert_eq!(info.ips, request().ips);
    assert!(!info.is_ca);
    let der = &certificates_from_pem(&issued.cert_pem).unwrap()[0];
    assert_eq!(peer_identity(der).unwrap().organizations, ["system:nodes"]);
    assert_eq!(fingerprint(der).len(), 64);
    KeyPair::from_pem(&issued.key_pem).unwrap();
}

#[test]
fn renewal_is_due_in_the_last_third() {
    let issued = Ca::generate("ca").unwrap().issue(request()).unwrap();
    let info = CertInfo::from_pem(&issued.cert_pem).unwrap();
    let lifetime = info.not_after - info.not_before;
    for (passed, due) in [(lifetime / 2, false), (lifetime * 3 / 4, true), (lifetime * 2, true), (-1, true)] {
        assert_eq!(info.needs_renewal(info.not_before + passed), due, "{passed} of {lifetime} passed");
    }
}

#[test]
fn a_signing_request_gives_only_its_key() {
    let (ca, key) = (Ca::generate("ca").unwrap(), KeyPair::generate().unwrap());
    let cert = ca.sign_csr(&csr(&key, "system:admin").unwrap(), &request()).unwrap();
    assert_eq!(CertInfo::from_pem(&cert).unwrap().common_name, "system:node:n1");
    assert!(matches!(ca.sign_csr("nonsense", &request()), Err(Error::Request(_))));
}

#[test]
fn halves_that_do_not_fit_are_refused() {
    let (a, b) = (Ca::generate("a").unwrap(), Ca::generate("b").unwrap());
    assert!(matches!(Ca::from_pem(a.cert_pem(), b.key_pem()), Err(Error::Mismatch(n)) if n == "a"));
    let leaf = a.issue(request()).unwrap();
    assert!(matches!(Ca::from_pem(&leaf.cert_pem, &leaf.key_pem), Err(Error::NotAnAuthority(_))));
    let two = IssueRequest { organizations: vec!["x".into(), "y".into()], ..request() };
    assert!(matches!(a.issue(two), Err(Error::Organizations(2))));
}

#[test]
fn the_service_account_key_has_a_public_half() {
    let key = service_account_key().unwrap();
    assert!(key.private_pem().contains("BEGIN PRIVATE KEY"));
    assert!(key.public_pem().contains("BEGIN PUBLIC KEY"));
    assert_eq!(KeyPair::from_pem(key.private_pem()).unwrap().public_pem(), key.public_pem());
}
