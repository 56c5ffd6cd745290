// The authorization code flow (RFC 6749 §4.1) with PKCE (RFC 7636) and the issuer in the answer (RFC 9207).

import assert from 'node:assert/strict';
import { library, world } from '../world.mjs';
import { asked, call, client, discovered, linked, oauth, refused, register, SCOPE, status } from './registered.mjs';

async function discovery() {
  const config = await client();
  const metadata = config.serverMetadata();
  assert.equal(metadata.issuer, world.two.public_url);
  assert.ok(metadata.supportsPKCE());
  assert.equal(metadata.authorization_response_iss_parameter_supported, true);
  assert.equal(metadata.pushed_authorization_request_endpoint, `${world.two.public_url}/oauth/par`);
  assert.deepEqual(metadata.dpop_signing_alg_values_supported, ['EdDSA', 'ES256', 'PS256']);
}

async function codeFlowAndCall() {
  const config = await client();
  const token = await linked(config);
  assert.equal(token.token_type, 'bearer');
  assert.equal(token.scope, SCOPE);
  assert.ok(token.expiresIn() > 3500, `${token.expiresIn()}`);
  const called = await call(config, token.access_token);
  assert.equal(called.status, 200);
  const seen = await called.json();
  assert.equal(seen.target, '/orders?x=1');
  assert.equal(seen.headers['p2pi-client'], config.clientMetadata().client_id);
  assert.equal(seen.headers['p2pi-subject'], world.login);
  assert.equal(seen.headers.authorization, undefined);
}

/** From a call without a token to the server that gives one (RFC 9728), as the library below this one reads and checks it. */
async function resourceMetadata() {
  const below = await library('oauth4webapi');
  const answered = await fetch(`${world.two.public_url}/p2pi/`);
  assert.equal(answered.status, 401);
  const named = /resource_metadata="([^"]+)"/.exec(answered.headers.get('WWW-Authenticate'))?.[1];
  const resource = new URL(world.two.public_url);
  const response = await below.resourceDiscoveryRequest(resource);
  assert.equal(response.url, named);
  const metadata = await below.processResourceDiscoveryResponse(resource, response);
  const config = await oauth.discovery(new URL(metadata.authorization_servers[0]), 'anybody', undefined, oauth.None(), { algorithm: 'oauth2' });
  assert.equal(config.serverMetadata().issuer, world.two.public_url);
}

async function declined() {
  const config = await client();
  const { location, checks } = await asked(config, { decision: 'decline' });
  await assert.rejects(oauth.authorizationCodeGrant(config, location, checks), (error) => {
    assert.ok(error instanceof oauth.AuthorizationResponseError, `${error}`);
    assert.equal(error.error, 'access_denied');
    return true;
  });
}

/** More than the client is registered for: the library reports it from the answer, and nobody was asked for consent. */
async function scopeTooWide() {
  const config = await client({ scope: 'p2pi' });
  const { location, checks } = await asked(config, { decision: 'not-asked' });
  await refused('invalid_scope', () => oauth.authorizationCodeGrant(config, location, checks));
}

/** A token is for two or for nobody (RFC 8707): by its issuer and by the URL that peers call. */
async function resource() {
  const config = await client();
  for (const path of ['', '/', '/p2pi']) {
    const named = { resource: world.two.public_url + path };
    const { location, checks } = await asked(config, named);
    const token = await oauth.authorizationCodeGrant(config, location, checks, named);
    assert.equal(await status(config, token.access_token), 200);
    const renewed = await oauth.refreshTokenGrant(config, token.refresh_token, named);
    assert.equal((await oauth.tokenIntrospection(config, renewed.access_token)).aud, world.two.public_url);
  }
}

async function resourceElsewhere() {
  const config = await client();
  const elsewhere = { resource: world.one.public_url };
  const refusal = await asked(config, { ...elsewhere, decision: 'not-asked' });
  await refused('invalid_target', () => oauth.authorizationCodeGrant(config, refusal.location, refusal.checks));
  const { location, checks } = await asked(config);
  await refused('invalid_target', () => oauth.authorizationCodeGrant(config, location, checks, elsewhere));
}

async function wrongIssuer() {
  const config = await client();
  const { location, checks } = await asked(config);
  location.searchParams.set('iss', world.one.public_url);
  await assert.rejects(oauth.authorizationCodeGrant(config, location, checks), (error) => {
    assert.match(`${error.cause?.message}`, /"iss"/);
    return true;
  });
}

async function wrongVerifier() {
  const config = await client();
  const { location, checks } = await asked(config);
  const other = { ...checks, pkceCodeVerifier: oauth.randomPKCECodeVerifier() };
  await refused('invalid_grant', () => oauth.authorizationCodeGrant(config, location, other));
}

async function replayedCode() {
  const config = await client();
  const { location, checks } = await asked(config);
  const token = await oauth.authorizationCodeGrant(config, location, checks);
  assert.equal(await status(config, token.access_token), 200);
  await refused('invalid_grant', () => oauth.authorizationCodeGrant(config, location, checks));
  assert.equal(await status(config, token.access_token), 401);
}

async function nativeAppOnAnotherPort() {
  const config = await client({ flags: ['--native'], redirectUri: 'http://127.0.0.1/callback' });
  for (const port of [28471, 28472]) await linked(config, { redirectUri: `http://127.0.0.1:${port}/callback` });
}

/** A client that cannot keep a secret (RFC 8252): PKCE, and a refresh token that rotates. */
async function publicClient() {
  const app = await register({ flags: ['--auth-method', 'none', '--native'], redirectUri: 'http://127.0.0.1/callback' });
  assert.equal(app.client_secret ?? null, null);
  const config = await discovered(app, { authentication: oauth.None });
  const { location, checks } = await asked(config, { redirectUri: 'http://127.0.0.1:28473/callback' });
  const other = { ...checks, pkceCodeVerifier: oauth.randomPKCECodeVerifier() };
  await refused('invalid_grant', () => oauth.authorizationCodeGrant(config, location, other));
  const first = await linked(config, { redirectUri: 'http://127.0.0.1:28473/callback' });
  const second = await oauth.refreshTokenGrant(config, first.refresh_token);
  const third = await oauth.refreshTokenGrant(config, second.refresh_token);
  assert.equal(new Set([first, second, third].map((token) => token.refresh_token)).size, 3);
  assert.equal(await status(config, third.access_token), 200);
  await refused('unauthorized_client', () => oauth.clientCredentialsGrant(config));
  await oauth.tokenRevocation(config, third.refresh_token);
  assert.equal(await status(config, third.access_token), 401);
}

export const codeFlow = [
  discovery,
  resourceMetadata,
  codeFlowAndCall,
  declined,
  scopeTooWide,
  resource,
  resourceElsewhere,
  wrongIssuer,
  wrongVerifier,
  replayedCode,
  nativeAppOnAnotherPort,
  publicClient,
];
