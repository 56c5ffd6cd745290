//! Tokens of apps that act for themselves, and secrets that were replaced.

use super::{APPS, Alone, Dead, INTROSPECT, REVOKE, Run, TOKEN, Wrong, is_refused};

impl Run {
    pub(super) async fn gets_one_alone(&mut self, app: usize) -> Result<(), Wrong> {
        let answer = self.asks(app, TOKEN, &[("grant_type", "client_credentials")]).await;
        if APPS[app].is_public {
            return is_refused(&answer, "unauthorized_client", "client credentials of a public client");
        }
        let access = answer.text("access_token").unwrap_or_default().to_owned();
        if answer.status != 200 || answer.text("refresh_token").is_some() {
            wrong!("client credentials were answered {answer:?}");
        }
        self.is_new(&access)?;
        let now = self.now();
        self.alone.push(Alone::new(access, app, APPS[app].access_ttl, now));
        Ok(())
    }

    pub(super) async fn uses_alone(&mut self, token: u8) -> Result<(), Wrong> {
        if self.alone.is_empty() {
            return Ok(());
        }
        let token = &self.alone[usize::from(token) % self.alone.len()];
        let (ought, is) = (token.is_good(self.now()), self.real.takes(&token.text).await);
        if ought != is {
            wrong!("a token of an app itself was {}", if is { "taken, and is not good" } else { "refused, and is good" });
        }
        Ok(())
    }

    pub(super) async fn revokes_alone(&mut self, token: u8) -> Result<(), Wrong> {
        if self.alone.is_empty() {
            return Ok(());
        }
        let place = usize::from(token) % self.alone.len();
        let token = self.alone.swap_remove(place);
        for _ in 0..2 {
            let answer = self.asks(token.app, REVOKE, &[("token", &token.text)]).await;
            if answer.status != 200 {
                wrong!("the revocation of a token alone was answered {answer:?}");
            }
        }
        self.dead.push(Dead { text: token.text, app: token.app });
        Ok(())
    }

    pub(super) async fn tries_old_secret(&mut self, app: usize, which: usize) -> Result<(), Wrong> {
        let (secrets, now) = (&self.secrets[app], self.now());
        let (secret, is_good) = match (which % 2, secrets.replaced(which / 2, now), secrets.over.is_empty()) {
            (0, Some(replaced), _) => replaced,
            (_, _, false) => (secrets.over[which % secrets.over.len()].as_str(), false),
            _ => return Ok(()),
        };
        if APPS[app].is_public {
            return Ok(());
        }
        let answer = self.real.posts(INTROSPECT, app, secret, &[("token", "p2pa_nothing")]).await;
        let (status, error) = if is_good { (200, "") } else { (401, "invalid_client") };
        if (answer.status, answer.error()) != (status, error) {
            wrong!("an older secret, good: {is_good}, was answered {answer:?}");
        }
        Ok(())
    }
}
