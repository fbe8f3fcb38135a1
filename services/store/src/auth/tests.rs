use bytes::Bytes;
use store_api::authpb::permission::Type;
use store_api::authpb::{Permission, UserAddOptions};
use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::request_op::Request;

use super::*;
use crate::command::Operation;

fn add(name: &str) -> ChangeOf {
    ChangeOf::UserAdd(pb::AuthUserAddRequest { name: name.into(), ..Default::default() })
}

fn give(user: &str, role: &str) -> ChangeOf {
    ChangeOf::UserGrantRole(pb::AuthUserGrantRoleRequest { user: user.into(), role: role.into() })
}

fn take(name: &str, role: &str) -> ChangeOf {
    ChangeOf::UserRevokeRole(pb::AuthUserRevokeRoleRequest { name: name.into(), role: role.into() })
}

fn role(name: &str) -> ChangeOf {
    ChangeOf::RoleAdd(pb::AuthRoleAddRequest { name: name.into() })
}

fn permit(name: &str, kind: Type, key: &str, end: &str) -> ChangeOf {
    let (key, range_end) = (Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(end.as_bytes()));
    let perm = Some(Permission { perm_type: kind.into(), key, range_end });
    ChangeOf::RoleGrantPermission(pb::AuthRoleGrantPermissionRequest { name: name.into(), perm })
}

fn enable() -> ChangeOf {
    ChangeOf::Enable(pb::AuthEnableRequest {})
}

fn delete_user(name: &str) -> ChangeOf {
    ChangeOf::UserDelete(pb::AuthUserDeleteRequest { name: name.into() })
}

fn delete_role(role: &str) -> ChangeOf {
    ChangeOf::RoleDelete(pb::AuthRoleDeleteRequest { role: role.into() })
}

fn book(changes: &[ChangeOf]) -> Book {
    let mut book = Book::default();
    for change in changes {
        book.apply(change).unwrap();
    }
    book
}

/// `ann` may read `a` to `e`, in two pieces, read and write `m`, and write from `x` on.
fn example() -> Book {
    book(&[
        add("root"),
        give("root", "root"),
        add("ann"),
        role("r"),
        role("s"),
        permit("r", Type::Read, "c", "e"),
        permit("s", Type::Read, "a", "c"),
        permit("s", Type::Readwrite, "m", ""),
        permit("r", Type::Write, "x", "\0"),
        give("ann", "s"),
        give("ann", "r"),
        enable(),
    ])
}

fn calling(book: &Book, name: &str) -> Option<Caller> {
    Some(Caller::User(CallingUser { name: name.into(), revision: book.revision() }))
}

#[test]
fn ranges_are_covered_by_all_roles_together() {
    let book = example();
    let ann = calling(&book, "ann");
    let reads = [
        ("a", "", true),
        ("a", "e", true),
        ("b", "d", true),
        ("a", "e\0", false),
        ("e", "", false),
        ("a", "\0", false),
        ("m", "", true),
        ("m", "n", false),
        ("x", "", false),
        ("", "", false),
    ];
    for (key, end, allowed) in reads {
        assert_eq!(book.read(ann.as_ref(), key.as_bytes(), end.as_bytes()).is_ok(), allowed, "read {key:?} {end:?}");
    }
    let writes =
        [("a", "", false), ("m", "", true), ("x", "", true), ("x", "\0", true), ("y", "z", true), ("w", "y", false)];
    for (key, end, allowed) in writes {
        assert_eq!(book.write(ann.as_ref(), key.as_bytes(), end.as_bytes()).is_ok(), allowed, "write {key:?} {end:?}");
    }
}

#[test]
fn who_asks_decides() {
    let book = example();
    let ask = |caller: Option<Caller>| {
        let caller = caller.as_ref();
        [book.read(caller, b"a", b""), book.admin(caller), book.known(caller)]
    };
    let (denied, empty, old) = (Err(Refusal::PermissionDenied), Err(Refusal::UserEmpty), Err(Refusal::AuthOldRevision));
    let earlier = CallingUser { name: "root".into(), revision: book.revision() - 1 };
    let cases = [
        (calling(&book, "root"), [Ok(()), Ok(()), Ok(())]),
        (calling(&book, "ann"), [Ok(()), denied, Ok(())]),
        (calling(&book, "nobody"), [denied, denied, denied]),
        (Some(Caller::User(earlier)), [old, old, old]),
        (Some(Caller::Store(true)), [Ok(()), Ok(()), Ok(())]),
        (None, [empty, empty, empty]),
    ];
    for (caller, expected) in cases {
        assert_eq!(ask(caller.clone()), expected, "{caller:?}");
    }
    let ann = calling(&book, "ann");
    assert_eq!(book.admin_or_self(ann.as_ref(), "ann"), Ok(()));
    assert_eq!(book.admin_or_self(ann.as_ref(), "root"), denied);
    assert_eq!(book.admin_or_with(ann.as_ref(), "r"), Ok(()));
    assert_eq!(book.admin_or_with(ann.as_ref(), "root"), denied);
    assert_eq!(Book::default().admin(None), Ok(()), "nobody asks while it is disabled");
}

#[test]
fn changes_are_refused_as_in_etcd() {
    let revoke = |role: &str, key: &'static str| {
        let (role, key) = (role.into(), Bytes::from_static(key.as_bytes()));
        ChangeOf::RoleRevokePermission(pb::AuthRoleRevokePermissionRequest { role, key, range_end: Bytes::new() })
    };
    let login = |name: &str, revision| ChangeOf::Login(Login { name: name.into(), token: "t".into(), revision });
    let now = example().revision();
    let cases = [
        (add(""), Refusal::UserEmpty),
        (add("ann"), Refusal::UserAlreadyExist),
        (role(""), Refusal::RoleEmpty),
        (role("r"), Refusal::RoleAlreadyExist),
        (give("ann", "none"), Refusal::RoleNotFound),
        (give("none", "r"), Refusal::UserNotFound),
        (take("ann", "root"), Refusal::RoleNotGranted),
        (take("root", "root"), Refusal::InvalidAuthMgmt),
        (delete_user("root"), Refusal::InvalidAuthMgmt),
        (delete_user("none"), Refusal::UserNotFound),
        (delete_role("root"), Refusal::InvalidAuthMgmt),
        (delete_role("none"), Refusal::RoleNotFound),
        (permit("r", Type::Read, "b", "a"), Refusal::InvalidAuthMgmt),
        (permit("r", Type::Read, "", ""), Refusal::InvalidAuthMgmt),
        (permit("none", Type::Read, "a", ""), Refusal::RoleNotFound),
        (revoke("r", "none"), Refusal::PermissionNotGranted),
        (login("none", now), Refusal::AuthFailed),
        (login("ann", now - 1), Refusal::AuthOldRevision),
    ];
    for (change, expected) in cases {
        let mut book = example();
        assert_eq!(book.apply(&change), Err(expected), "{change:?}");
        assert_eq!(book, example(), "{change:?} left something behind");
    }
    assert_eq!(Book::default().apply(&enable()), Err(Refusal::RootUserNotExist));
    assert_eq!(book(&[add("root")]).apply(&enable()), Err(Refusal::RootRoleNotExist));
    assert_eq!(book(&[add("root")]).apply(&login("root", 2)), Err(Refusal::AuthNotEnabled));
}

#[test]
fn the_revision_counts_what_callers_have_to_notice() {
    let mut book = example();
    let before = book.revision();
    assert_eq!(book.apply(&give("ann", "r")), Ok(Vec::new()), "she has it");
    assert_eq!(book.apply(&enable()), Ok(Vec::new()));
    assert_eq!(book.revision(), before);
    assert_eq!(book.apply(&delete_role("s")), Ok(vec!["ann".to_owned()]), "her token is not good any more");
    assert_eq!(book.revision(), before + 1);
    assert_eq!(book.user("ann").unwrap().roles, ["r"]);
    assert_eq!(book.apply(&permit("r", Type::Readwrite, "c", "e")), Ok(Vec::new()));
    assert_eq!(book.role("r").unwrap().permissions.len(), 2, "the kind of one of them changed");
    assert_eq!(Book::default().revision(), 1);
}

#[test]
fn every_part_of_a_change_is_checked() {
    let book = example();
    let ann = calling(&book, "ann");
    let put =
        |key: &'static str, lease, prev_kv| pb::PutRequest { key: key.into(), lease, prev_kv, ..Default::default() };
    let nested = |request: Request| {
        let op = |request| pb::RequestOp { request: Some(request) };
        let inner = pb::TxnRequest { success: vec![op(request)], ..Default::default() };
        Operation::Txn(pb::TxnRequest { failure: vec![op(Request::RequestTxn(inner))], ..Default::default() })
    };
    let compare = |key: &'static str| {
        let compare = vec![pb::Compare { key: key.into(), ..Default::default() }];
        Operation::Txn(pb::TxnRequest { compare, ..Default::default() })
    };
    let delete = |key: &'static str, prev_kv| {
        Operation::DeleteRange(pb::DeleteRangeRequest { key: key.into(), prev_kv, ..Default::default() })
    };
    let read = |key: &'static str| Request::RequestRange(pb::RangeRequest { key: key.into(), ..Default::default() });
    let cases = [
        (Operation::Put(put("m", 0, true)), true),
        (Operation::Put(put("x", 0, false)), true),
        (Operation::Put(put("x", 0, true)), false),
        (Operation::Put(put("x", 1, false)), true),
        (Operation::Put(put("x", 2, false)), false),
        (delete("x", false), true),
        (delete("x", true), false),
        (compare("a"), true),
        (compare("x"), false),
        (nested(read("a")), true),
        (nested(read("x")), false),
        (nested(Request::RequestPut(put("x", 2, false))), false),
        (Operation::LeaseRevoke(pb::LeaseRevokeRequest { id: 1 }), true),
        (Operation::LeaseRevoke(pb::LeaseRevokeRequest { id: 2 }), false),
        (Operation::LeaseGrant(pb::LeaseGrantRequest::default()), true),
        (Operation::Auth(Change { change: Some(add("bob")) }), false),
    ];
    // A key that hangs on the first lease may be changed by her, one on the second may not.
    let keys_on = |lease| if lease == 1 { vec![Bytes::from("y")] } else { vec![Bytes::from("b")] };
    for (change, allowed) in cases {
        assert_eq!(operation(&book, ann.as_ref(), &change, keys_on).is_ok(), allowed, "{change:?}");
        assert_eq!(operation(&book, None, &change, keys_on), Err(Refusal::UserEmpty), "{change:?}");
        assert_eq!(operation(&book, calling(&book, "root").as_ref(), &change, keys_on), Ok(()), "{change:?}");
    }
}

#[test]
fn tokens_end_with_what_they_were_given_for() {
    let auth = Auth::new(example());
    let with = |token: &str| Credentials { token: Some(token.into()), ..Default::default() };
    let login = |name: &str, token: &str| {
        let revision = auth.book().revision();
        auth.apply(&ChangeOf::Login(Login { name: name.into(), token: token.into(), revision }))
    };
    login("ann", "1").unwrap();
    login("root", "2").unwrap();
    assert_eq!(auth.caller(&with("1")), Ok(calling(&auth.book(), "ann")));
    assert_eq!(auth.caller(&with("3")), Err(Refusal::InvalidAuthToken));
    assert_eq!(auth.caller(&Credentials::default()), Ok(None));
    let certificate = Credentials { common_name: Some("ann".into()), ..Default::default() };
    assert_eq!(auth.caller(&certificate), Ok(calling(&auth.book(), "ann")));
    auth.apply(&delete_user("ann")).unwrap();
    assert_eq!(auth.caller(&with("1")), Err(Refusal::InvalidAuthToken));
    assert_eq!(auth.caller(&with("2")), Ok(calling(&auth.book(), "root")));
    let options = Some(UserAddOptions { no_password: true });
    let certified = pb::AuthUserAddRequest { name: "c".into(), options, ..Default::default() };
    auth.apply(&ChangeOf::UserAdd(certified)).unwrap();
    assert_eq!(login("c", "4"), Err(Refusal::AuthFailed));
    auth.apply(&ChangeOf::Disable(pb::AuthDisableRequest {})).unwrap();
    assert_eq!(auth.caller(&with("2")), Ok(None), "nobody asks");
}
