//! Users, roles and their ranges of keys: what changes them, and the questions that are asked of them. Pure.

use bytes::Bytes;
use prost::Message;
use store_api::authpb::Permission;
use store_api::authpb::permission::Type;
use store_api::etcdserverpb as pb;

use super::Caller;
use crate::error::Refusal;

/// The user and the role that may do everything.
const ROOT: &str = "root";

/// Everything that is known about users; the payload of [`crate::schema::state::AUTH`]. Lists are in the order of names.
#[derive(Clone, PartialEq, Message)]
pub struct Book {
    /// Whether anything is checked.
    #[prost(bool, tag = "1")]
    pub enabled: bool,
    /// Changes so far.
    #[prost(uint64, tag = "2")]
    changes: u64,
    /// All users.
    #[prost(message, repeated, tag = "3")]
    pub users: Vec<User>,
    /// All roles.
    #[prost(message, repeated, tag = "4")]
    pub roles: Vec<Role>,
}

/// A user.
#[derive(Clone, PartialEq, Message)]
pub struct User {
    /// Unique.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What [`super::hash`] made of the password.
    #[prost(string, tag = "2")]
    pub password: String,
    /// Known by certificate only.
    #[prost(bool, tag = "3")]
    pub no_password: bool,
    /// Roles, in the order of names.
    #[prost(string, repeated, tag = "4")]
    pub roles: Vec<String>,
}

/// A role.
#[derive(Clone, PartialEq, Message)]
pub struct Role {
    /// Unique.
    #[prost(string, tag = "1")]
    pub name: String,
    /// In the order of ranges.
    #[prost(message, repeated, tag = "2")]
    pub permissions: Vec<Permission>,
}

/// A user has shown the password; applied on every member, so that all know the token.
#[derive(Clone, PartialEq, Message)]
pub struct Login {
    /// The user.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The new token.
    #[prost(string, tag = "2")]
    pub token: String,
    /// The book's revision when the password was compared.
    #[prost(uint64, tag = "3")]
    pub revision: u64,
}

/// A change of the book.
#[derive(Clone, PartialEq, Message)]
pub struct Change {
    /// Which.
    #[prost(oneof = "ChangeOf", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12")]
    pub change: Option<ChangeOf>,
}

/// The kinds of change. Passwords come hashed.
#[derive(Clone, PartialEq, prost::Oneof)]
#[expect(missing_docs, reason = "named after the requests they carry")]
pub enum ChangeOf {
    #[prost(message, tag = "1")]
    Enable(pb::AuthEnableRequest),
    #[prost(message, tag = "2")]
    Disable(pb::AuthDisableRequest),
    #[prost(message, tag = "3")]
    UserAdd(pb::AuthUserAddRequest),
    #[prost(message, tag = "4")]
    UserDelete(pb::AuthUserDeleteRequest),
    #[prost(message, tag = "5")]
    UserChangePassword(pb::AuthUserChangePasswordRequest),
    #[prost(message, tag = "6")]
    UserGrantRole(pb::AuthUserGrantRoleRequest),
    #[prost(message, tag = "7")]
    UserRevokeRole(pb::AuthUserRevokeRoleRequest),
    #[prost(message, tag = "8")]
    RoleAdd(pb::AuthRoleAddRequest),
    #[prost(message, tag = "9")]
    RoleDelete(pb::AuthRoleDeleteRequest),
    #[prost(message, tag = "10")]
    RoleGrantPermission(pb::AuthRoleGrantPermissionRequest),
    #[prost(message, tag = "11")]
    RoleRevokePermission(pb::AuthRoleRevokePermissionRequest),
    #[prost(message, tag = "12")]
    Login(Login),
}

/// A range of keys: from the first, up to, not including, the second if there is one.
type Span<'a> = (&'a [u8], Option<Bytes>);

/// Reads the API's pair: no end means one key, a single zero byte means no upper bound.
fn span<'a>(key: &'a [u8], end: &[u8]) -> Span<'a> {
    match end {
        [] => (key, Some([key, &[0]].concat().into())),
        [0] => (key, None),
        _ => (key, Some(Bytes::copy_from_slice(end))),
    }
}

/// Whether several ranges together hold all of another one.
fn covered(mut by: Vec<Span<'_>>, (start, end): &Span<'_>) -> bool {
    by.sort_unstable();
    let mut reached = Bytes::copy_from_slice(start);
    for (from, to) in by {
        if from > reached.as_ref() {
            return false;
        }
        match to {
            None => return true,
            Some(to) if to > reached => reached = to,
            Some(_) => {}
        }
        if end.as_ref().is_some_and(|end| reached >= end) {
            return true;
        }
    }
    false
}

impl Book {
    /// Counts changes; 1 before the first, as in etcd.
    pub fn revision(&self) -> u64 {
        self.changes + 1
    }

    /// The user of this name.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| user.name == name)
    }

    /// The role of this name.
    pub fn role(&self, name: &str) -> Option<&Role> {
        self.roles.iter().find(|role| role.name == name)
    }

    fn user_mut(&mut self, name: &str) -> Result<&mut User, Refusal> {
        self.users.iter_mut().find(|user| user.name == name).ok_or(Refusal::UserNotFound)
    }

    fn role_mut(&mut self, name: &str) -> Result<&mut Role, Refusal> {
        self.roles.iter_mut().find(|role| role.name == name).ok_or(Refusal::RoleNotFound)
    }

    /// Changes the book; returns the users whose tokens are not good any more.
    ///
    /// # Errors
    /// The change is refused, and nothing changed.
    pub fn apply(&mut self, change: &ChangeOf) -> Result<Vec<String>, Refusal> {
        match change {
            ChangeOf::Enable(_) => self.enable().map(|()| Vec::new()),
            // Neither does anything that callers would have to notice.
            ChangeOf::Disable(_) if !self.enabled => Ok(Vec::new()),
            ChangeOf::Login(login) => self.check_login(login).map(|()| Vec::new()),
            ChangeOf::UserGrantRole(r) if self.user(&r.user).is_some_and(|u| u.roles.contains(&r.role)) => {
                Ok(Vec::new())
            }
            change => {
                let stale = self.edit(change)?;
                self.changes += 1;
                Ok(stale)
            }
        }
    }

    fn edit(&mut self, change: &ChangeOf) -> Result<Vec<String>, Refusal> {
        let mut stale = Vec::new();
        match change {
            ChangeOf::Disable(_) => self.enabled = false,
            ChangeOf::UserAdd(r) => self.add_user(r)?,
            ChangeOf::UserDelete(r) => {
                self.protect(r.name == ROOT)?;
                self.user_mut(&r.name)?;
                self.users.retain(|user| user.name != r.name);
                stale.push(r.name.clone());
            }
            ChangeOf::UserChangePassword(r) => {
                self.user_mut(&r.name)?.password.clone_from(&r.hashed_password);
                stale.push(r.name.clone());
            }
            ChangeOf::UserGrantRole(r) => {
                let known = r.role == ROOT || self.role(&r.role).is_some();
                let user = self.user_mut(&r.user)?;
                if !known {
                    return Err(Refusal::RoleNotFound);
                }
                user.roles.push(r.role.clone());
                user.roles.sort_unstable();
            }
            ChangeOf::UserRevokeRole(r) => {
                self.protect(r.name == ROOT && r.role == ROOT)?;
                let roles = &mut self.user_mut(&r.name)?.roles;
                let place = roles.iter().position(|role| *role == r.role).ok_or(Refusal::RoleNotGranted)?;
                roles.remove(place);
            }
            ChangeOf::RoleAdd(r) => self.add_role(&r.name)?,
            ChangeOf::RoleDelete(r) => {
                self.protect(r.role == ROOT)?;
                self.role_mut(&r.role)?;
                self.roles.retain(|role| role.name != r.role);
                for user in self.users.iter_mut().filter(|user| user.roles.contains(&r.role)) {
                    user.roles.retain(|role| *role != r.role);
                    stale.push(user.name.clone());
                }
            }
            ChangeOf::RoleGrantPermission(r) => self.grant(r)?,
            ChangeOf::RoleRevokePermission(r) => {
                let permissions = &mut self.role_mut(&r.role)?.permissions;
                let same = |p: &Permission| p.key == r.key && p.range_end == r.range_end;
                let place = permissions.iter().position(same).ok_or(Refusal::PermissionNotGranted)?;
                permissions.remove(place);
            }
            ChangeOf::Enable(_) | ChangeOf::Login(_) => {}
        }
        Ok(stale)
    }

    /// While it is enabled, nobody may take away who administers it.
    fn protect(&self, root: bool) -> Result<(), Refusal> {
        if self.enabled && root { Err(Refusal::InvalidAuthMgmt) } else { Ok(()) }
    }

    fn enable(&mut self) -> Result<(), Refusal> {
        if self.enabled {
            return Ok(());
        }
        let root = self.user(ROOT).ok_or(Refusal::RootUserNotExist)?;
        if !root.roles.iter().any(|role| role == ROOT) {
            return Err(Refusal::RootRoleNotExist);
        }
        self.enabled = true;
        Ok(())
    }

    fn check_login(&self, login: &Login) -> Result<(), Refusal> {
        if !self.enabled {
            return Err(Refusal::AuthNotEnabled);
        }
        if self.user(&login.name).is_none_or(|user| user.no_password) {
            return Err(Refusal::AuthFailed);
        }
        if login.revision == self.revision() { Ok(()) } else { Err(Refusal::AuthOldRevision) }
    }

    fn add_user(&mut self, request: &pb::AuthUserAddRequest) -> Result<(), Refusal> {
        if request.name.is_empty() {
            return Err(Refusal::UserEmpty);
        }
        let Err(place) = self.users.binary_search_by(|user| user.name.cmp(&request.name)) else {
            return Err(Refusal::UserAlreadyExist);
        };
        let no_password = request.options.is_some_and(|options| options.no_password);
        let user = User {
            name: request.name.clone(),
            password: request.hashed_password.clone(),
            no_password,
            roles: Vec::new(),
        };
        self.users.insert(place, user);
        Ok(())
    }

    fn add_role(&mut self, name: &str) -> Result<(), Refusal> {
        if name.is_empty() {
            return Err(Refusal::RoleEmpty);
        }
        let Err(place) = self.roles.binary_search_by(|role| role.name.as_str().cmp(name)) else {
            return Err(Refusal::RoleAlreadyExist);
        };
        self.roles.insert(place, Role { name: name.to_owned(), permissions: Vec::new() });
        Ok(())
    }

    fn grant(&mut self, request: &pb::AuthRoleGrantPermissionRequest) -> Result<(), Refusal> {
        let permission = request.perm.as_ref().ok_or(Refusal::PermissionNotGiven)?;
        let order = |p: &Permission| (p.key.clone(), p.range_end.clone());
        let permissions = &mut self.role_mut(&request.name)?.permissions;
        let (start, end) = span(&permission.key, &permission.range_end);
        if start.is_empty() || end.is_some_and(|end| end <= start) {
            return Err(Refusal::InvalidAuthMgmt);
        }
        match permissions.binary_search_by_key(&order(permission), order) {
            Ok(place) => permissions[place].perm_type = permission.perm_type,
            Err(place) => permissions.insert(place, permission.clone()),
        }
        Ok(())
    }

    /// The user who asks; `None` if everything is allowed.
    fn asking(&self, caller: Option<&Caller>) -> Result<Option<&User>, Refusal> {
        let caller = match caller {
            _ if !self.enabled => return Ok(None),
            Some(Caller::Store(_)) => return Ok(None),
            Some(Caller::User(user)) => user,
            None => return Err(Refusal::UserEmpty),
        };
        if caller.revision < self.revision() {
            return Err(Refusal::AuthOldRevision);
        }
        let user = self.user(&caller.name).ok_or(Refusal::PermissionDenied)?;
        Ok(Some(user).filter(|user| !user.roles.iter().any(|role| role == ROOT)))
    }

    /// Lets administrators through.
    ///
    /// # Errors
    /// It is no administrator.
    pub fn admin(&self, caller: Option<&Caller>) -> Result<(), Refusal> {
        self.asking(caller)?.map_or(Ok(()), |_| Err(Refusal::PermissionDenied))
    }

    /// Lets everyone through who is a user.
    ///
    /// # Errors
    /// It is none.
    pub fn known(&self, caller: Option<&Caller>) -> Result<(), Refusal> {
        self.asking(caller).map(|_| ())
    }

    /// Lets everyone through who asks about the user or administers users.
    ///
    /// # Errors
    /// It is someone else.
    pub fn admin_or_self(&self, caller: Option<&Caller>, name: &str) -> Result<(), Refusal> {
        let themselves = self.asking(caller)?.is_none_or(|user| user.name == name);
        if themselves { Ok(()) } else { Err(Refusal::PermissionDenied) }
    }

    /// Lets everyone through who has the role or administers roles.
    ///
    /// # Errors
    /// It is someone else.
    pub fn admin_or_with(&self, caller: Option<&Caller>, role: &str) -> Result<(), Refusal> {
        let has = self.asking(caller)?.is_none_or(|user| user.roles.iter().any(|own| own == role));
        if has { Ok(()) } else { Err(Refusal::PermissionDenied) }
    }

    /// Whether all keys of a range may be read.
    ///
    /// # Errors
    /// No, or nobody knows who asks.
    pub fn read(&self, caller: Option<&Caller>, key: &[u8], end: &[u8]) -> Result<(), Refusal> {
        self.allow(caller, Type::Read, key, end)
    }

    /// Whether all keys of a range may be changed.
    ///
    /// # Errors
    /// No, or nobody knows who asks.
    pub fn write(&self, caller: Option<&Caller>, key: &[u8], end: &[u8]) -> Result<(), Refusal> {
        self.allow(caller, Type::Write, key, end)
    }

    fn allow(&self, caller: Option<&Caller>, kind: Type, key: &[u8], end: &[u8]) -> Result<(), Refusal> {
        let Some(user) = self.asking(caller)? else { return Ok(()) };
        let roles = user.roles.iter().filter_map(|name| self.role(name));
        let of_kind = |p: &&Permission| [kind, Type::Readwrite].contains(&p.perm_type());
        let permissions = roles.flat_map(|role| &role.permissions).filter(of_kind);
        let allowed = covered(permissions.map(|p| span(&p.key, &p.range_end)).collect(), &span(key, end));
        if allowed { Ok(()) } else { Err(Refusal::PermissionDenied) }
    }
}
