//! The Auth service, and who is calling.

use std::pin::Pin;
use std::sync::Arc;

use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::auth_server;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use super::mismatch;
use crate::auth::{self, Book, Caller, Change, ChangeOf, Credentials, Login};
use crate::command::{Operation, Outcome};
use crate::error::{Error, Refusal};
use crate::member::Member;

/// Where clients put their token.
const TOKEN_FIELDS: [&str; 2] = ["token", "authorization"];
/// Passwords that are hashed or compared at the same time: each takes a core for a tenth of a second.
const HASHING: usize = 2;
/// Tries to log in while others change users.
const LOGINS: usize = 5;
const TOKEN_LETTERS: usize = 16;

/// The name in the client's certificate, in a request's extensions where certificates count.
#[derive(Clone)]
pub struct CommonName(pub Arc<str>);

/// In the extensions of a request from the connection for members.
#[derive(Clone)]
pub struct FromMember;

/// What a request says about who sent it.
pub fn credentials<T>(request: &Request<T>) -> Credentials {
    let text = |name| request.metadata().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    Credentials {
        token: TOKEN_FIELDS.into_iter().find_map(text),
        common_name: request.extensions().get::<CommonName>().map(|name| name.0.to_string()),
        member: request.extensions().get::<FromMember>().is_some(),
    }
}

/// Who sent a request; `None` if it does not say, or if nobody asks.
///
/// # Errors
/// Its token is not good.
pub async fn caller<T>(member: &Member, request: &Request<T>) -> Result<Option<Caller>, Status> {
    let auth = &member.state.auth;
    if !auth.enabled() {
        return Ok(None);
    }
    let credentials = credentials(request);
    if let Ok(caller) = auth.caller(&credentials) {
        return Ok(caller);
    }
    // Another member may have handed the token out a moment ago.
    member.consensus.read_barrier().await?;
    Ok(auth.caller(&credentials).map_err(Error::from)?)
}

/// Lets a request through by the book.
///
/// # Errors
/// The caller may not do this, or is unknown.
pub async fn check<T>(
    member: &Member,
    request: &Request<T>,
    allowed: impl FnOnce(&Book, Option<&Caller>) -> Result<(), Refusal>,
) -> Result<(), Status> {
    let caller = caller(member, request).await?;
    Ok(allowed(&member.state.auth.book(), caller.as_ref()).map_err(Error::from)?)
}

/// Serves Auth.
pub struct Auth {
    member: Arc<Member>,
    hashing: Arc<Semaphore>,
}

impl Auth {
    /// Serves a member's users.
    pub fn new(member: Arc<Member>) -> Self {
        Auth { member, hashing: Arc::new(Semaphore::new(HASHING)) }
    }

    /// Proposes a change; all answers to changes consist of a header.
    async fn change(&self, caller: Option<Caller>, change: ChangeOf) -> Result<Option<pb::ResponseHeader>, Status> {
        let operation = Operation::Auth(Change { change: Some(change) });
        match self.member.propose(operation, caller).await? {
            Outcome::Auth(done) => Ok(self.member.complete(done.header)),
            _ => Err(mismatch()),
        }
    }

    /// Looks something up in the book as of now.
    async fn look<T, R>(
        &self,
        request: &Request<T>,
        allowed: impl FnOnce(&Book, Option<&Caller>) -> Result<(), Refusal>,
        look: impl FnOnce(&Book) -> Result<R, Refusal>,
    ) -> Result<R, Status> {
        self.member.consensus.read_barrier().await?;
        check(&self.member, request, allowed).await?;
        Ok(look(&self.member.state.auth.book()).map_err(Error::from)?)
    }

    /// Hashes or compares off the runtime's workers, a few at a time.
    async fn hashing<R: Send + 'static>(&self, work: impl FnOnce() -> R + Send + 'static) -> Result<R, Status> {
        let permit = self.hashing.clone().acquire_owned().await.map_err(|e| Status::internal(e.to_string()))?;
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        done.await.map_err(|e| Status::internal(e.to_string()))
    }

    /// What is kept of a new password. The form of hashes is this store's own, so clients cannot bring them along.
    async fn hashed(&self, password: String, hashed: &str) -> Result<String, Status> {
        if !hashed.is_empty() {
            return Err(Error::from(Refusal::HashedPassword).into());
        }
        self.hashing(move || auth::hash(&password)).await
    }

    async fn verified(&self, name: &str, password: &str) -> Result<u64, Status> {
        let (kept, revision) = {
            let book = self.member.state.auth.book();
            if !book.enabled {
                return Err(Error::from(Refusal::AuthNotEnabled).into());
            }
            let user = book.user(name).ok_or(Error::from(Refusal::AuthFailed))?;
            if user.no_password {
                return Err(Error::from(Refusal::NoPasswordUser).into());
            }
            (user.password.clone(), book.revision())
        };
        let password = password.to_owned();
        match self.hashing(move || auth::verify(&kept, &password)).await? {
            true => Ok(revision),
            false => Err(Error::from(Refusal::AuthFailed).into()),
        }
    }
}

/// A token nobody can guess.
fn new_token() -> String {
    let letters = rand::random::<[u8; TOKEN_LETTERS]>();
    letters.iter().map(|byte| format!("{byte:02x}")).collect()
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send + 'a>>;

/// Calls that change the book and answer with a header: name of the call, its request, its response, its change. Written as
/// `async_trait` would write them, because that does not look into macros.
macro_rules! changes {
    ($($call:ident: $request:ident => $response:ident, $change:ident;)*) => {$(
        fn $call<'s, 'a>(&'s self, request: Request<pb::$request>) -> Answer<'a, pb::$response>
        where
            's: 'a,
            Self: 'a,
        {
            Box::pin(async move {
                let caller = caller(&self.member, &request).await?;
                let header = self.change(caller, ChangeOf::$change(request.into_inner())).await?;
                Ok(Response::new(pb::$response { header }))
            })
        }
    )*};
}

#[tonic::async_trait]
impl auth_server::Auth for Auth {
    async fn authenticate(
        &self,
        request: Request<pb::AuthenticateRequest>,
    ) -> Result<Response<pb::AuthenticateResponse>, Status> {
        let request = request.into_inner();
        self.member.consensus.read_barrier().await?;
        for _ in 0..LOGINS {
            let revision = self.verified(&request.name, &request.password).await?;
            let token = new_token();
            let login = Login { name: request.name.clone(), token: token.clone(), revision };
            match self.change(None, ChangeOf::Login(login)).await {
                Ok(header) => return Ok(Response::new(pb::AuthenticateResponse { header, token })),
                Err(status) if status.message() == Refusal::AuthOldRevision.text() => {}
                Err(status) => return Err(status),
            }
        }
        Err(Error::from(Refusal::AuthOldRevision).into())
    }

    async fn auth_status(
        &self,
        request: Request<pb::AuthStatusRequest>,
    ) -> Result<Response<pb::AuthStatusResponse>, Status> {
        let status = |book: &Book| Ok((book.enabled, book.revision()));
        let (enabled, auth_revision) = self.look(&request, Book::admin, status).await?;
        Ok(Response::new(pb::AuthStatusResponse { header: self.member.complete(None), enabled, auth_revision }))
    }

    async fn user_get(
        &self,
        request: Request<pb::AuthUserGetRequest>,
    ) -> Result<Response<pb::AuthUserGetResponse>, Status> {
        let name = request.get_ref().name.clone();
        let roles = |book: &Book| book.user(&name).map(|user| user.roles.clone()).ok_or(Refusal::UserNotFound);
        let roles = self.look(&request, |book, caller| book.admin_or_self(caller, &name), roles).await?;
        Ok(Response::new(pb::AuthUserGetResponse { header: self.member.complete(None), roles }))
    }

    async fn user_list(
        &self,
        request: Request<pb::AuthUserListRequest>,
    ) -> Result<Response<pb::AuthUserListResponse>, Status> {
        let names = |book: &Book| Ok(book.users.iter().map(|user| user.name.clone()).collect());
        let users = self.look(&request, Book::admin, names).await?;
        Ok(Response::new(pb::AuthUserListResponse { header: self.member.complete(None), users }))
    }

    async fn user_add(
        &self,
        request: Request<pb::AuthUserAddRequest>,
    ) -> Result<Response<pb::AuthUserAddResponse>, Status> {
        let caller = caller(&self.member, &request).await?;
        let mut request = request.into_inner();
        let password = std::mem::take(&mut request.password);
        if !request.options.is_some_and(|options| options.no_password) {
            request.hashed_password = self.hashed(password, &request.hashed_password).await?;
        }
        let header = self.change(caller, ChangeOf::UserAdd(request)).await?;
        Ok(Response::new(pb::AuthUserAddResponse { header }))
    }

    async fn user_change_password(
        &self,
        request: Request<pb::AuthUserChangePasswordRequest>,
    ) -> Result<Response<pb::AuthUserChangePasswordResponse>, Status> {
        let caller = caller(&self.member, &request).await?;
        let mut request = request.into_inner();
        let password = std::mem::take(&mut request.password);
        request.hashed_password = self.hashed(password, &request.hashed_password).await?;
        let header = self.change(caller, ChangeOf::UserChangePassword(request)).await?;
        Ok(Response::new(pb::AuthUserChangePasswordResponse { header }))
    }

    async fn role_get(
        &self,
        request: Request<pb::AuthRoleGetRequest>,
    ) -> Result<Response<pb::AuthRoleGetResponse>, Status> {
        let name = request.get_ref().role.clone();
        let permissions = |book: &Book| book.role(&name).map(|r| r.permissions.clone()).ok_or(Refusal::RoleNotFound);
        let perm = self.look(&request, |book, caller| book.admin_or_with(caller, &name), permissions).await?;
        Ok(Response::new(pb::AuthRoleGetResponse { header: self.member.complete(None), perm }))
    }

    async fn role_list(
        &self,
        request: Request<pb::AuthRoleListRequest>,
    ) -> Result<Response<pb::AuthRoleListResponse>, Status> {
        let names = |book: &Book| Ok(book.roles.iter().map(|role| role.name.clone()).collect());
        let roles = self.look(&request, Book::admin, names).await?;
        Ok(Response::new(pb::AuthRoleListResponse { header: self.member.complete(None), roles }))
    }

    changes! {
        auth_enable: AuthEnableRequest => AuthEnableResponse, Enable;
        auth_disable: AuthDisableRequest => AuthDisableResponse, Disable;
        user_delete: AuthUserDeleteRequest => AuthUserDeleteResponse, UserDelete;
        user_grant_role: AuthUserGrantRoleRequest => AuthUserGrantRoleResponse, UserGrantRole;
        user_revoke_role: AuthUserRevokeRoleRequest => AuthUserRevokeRoleResponse, UserRevokeRole;
        role_add: AuthRoleAddRequest => AuthRoleAddResponse, RoleAdd;
        role_delete: AuthRoleDeleteRequest => AuthRoleDeleteResponse, RoleDelete;
        role_grant_permission: AuthRoleGrantPermissionRequest => AuthRoleGrantPermissionResponse, RoleGrantPermission;
        role_revoke_permission: AuthRoleRevokePermissionRequest => AuthRoleRevokePermissionResponse, RoleRevokePermission;
    }
}
