// Clients of openid-client's that instance two knows, and what all of them do.

import assert from 'node:assert/strict';
import { decides, library, two, world } from '../world.mjs';

export const oauth = await library('openid-client');
export const CALLBACK = 'https://client.example/callback';
export const SCOPE = 'p2pi reports';
let registered = 0;

/** Registers a client with further flags of `ib create`; gives what that prints, the secret among it. */
export async function register({ flags = [], redirectUri = CALLBACK, scope = SCOPE, secret } = {}) {
  registered += 1;
  const scopes = scope.split(' ').flatMap((word) => ['--scope', word]);
  const redirect = redirectUri ? ['--redirect-uri', redirectUri] : [];
  const stdin = secret === undefined ? [] : ['--client-secret-stdin'];
  return two(['ib', 'create', `openid-client-${registered}`, ...redirect, ...scopes, ...stdin, ...flags], secret);
}

/** As the library discovers two (RFC 8414), for a client that authenticates with a secret. */
export async function discovered(app, { authentication = oauth.ClientSecretBasic, secret } = {}) {
  const given = secret ?? app.client_secret;
  return oauth.discovery(new URL(world.two.public_url), app.client_id, given, authentication(given), { algorithm: 'oauth2' });
}

/** A client that two knows, with a secret. */
export async function client({ authentication, secret, ...registration } = {}) {
  return discovered(await register(registration), { authentication, secret });
}

/** Goes to the authorization endpoint in a browser; gives where it was sent back to, and what the exchange has to check. */
export async function asked(config, { redirectUri = CALLBACK, decision, pushed = false, options, ...more } = {}) {
  const pkceCodeVerifier = oauth.randomPKCECodeVerifier();
  const expectedState = oauth.randomState();
  const parameters = {
    redirect_uri: redirectUri,
    scope: SCOPE,
    state: expectedState,
    code_challenge: await oauth.calculatePKCECodeChallenge(pkceCodeVerifier),
    code_challenge_method: 'S256',
    ...more,
  };
  const url = pushed
    ? await oauth.buildAuthorizationUrlWithPAR(config, parameters, options)
    : oauth.buildAuthorizationUrl(config, parameters);
  return { url, location: await decides(url, redirectUri, decision), checks: { pkceCodeVerifier, expectedState } };
}

/** The whole code flow. The library checks state and issuer. */
export async function linked(config, how = {}) {
  const { location, checks } = await asked(config, how);
  return oauth.authorizationCodeGrant(config, location, checks, undefined, how.options);
}

/** One call of what is behind two's gateway. */
export function call(config, token, path = '/p2pi/orders?x=1', options = undefined) {
  return oauth.fetchProtectedResource(config, token, new URL(world.two.public_url + path), 'GET', null, undefined, options);
}

/** The status of a call, also of one that the library reports as a challenge. */
export async function status(config, token, path, options) {
  try {
    return (await call(config, token, path, options)).status;
  } catch (error) {
    if (error instanceof oauth.WWWAuthenticateChallengeError) return error.status;
    throw error;
  }
}

/** Does what must be refused with that OAuth error. */
export async function refused(code, ask) {
  await assert.rejects(ask, (error) => {
    assert.equal(error.error, code, `${error.error ?? error}, expected ${code}`);
    return true;
  });
}

/** Does what must be refused because the client is not who it says: 401 with a challenge, which the library reports in place of the document. */
export async function refusedAsClient(ask) {
  const error = await ask().then(
    () => assert.fail('it was not refused'),
    (why) => why,
  );
  assert.ok(error instanceof oauth.WWWAuthenticateChallengeError, `${error}`);
  assert.equal(error.status, 401);
  assert.equal(error.cause[0].scheme, 'basic');
  assert.equal((await error.response.json()).error, 'invalid_client');
}

/** Counts what the library sends from now on, as [path, status]. */
export function watched(config) {
  const seen = [];
  config[oauth.customFetch] = async (url, options) => {
    const response = await fetch(url, options);
    seen.push([new URL(url).pathname, response.status]);
    return response;
  };
  return seen;
}
