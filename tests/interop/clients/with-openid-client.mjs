// openid-client as a client of ours: `with-openid-client.mjs WORLD`. Each scenario registers a client of its own at instance two.

import assert from 'node:assert/strict';
import { setTimeout } from 'node:timers/promises';
import { decides, library, play, two, world } from './world.mjs';

const oauth = await library('openid-client');
const CALLBACK = 'https://client.example/callback';
const SCOPE = 'p2pi reports';
let registered = 0;

/** A client that two knows, with further flags of `ib create`, as the library discovers two (RFC 8414). */
async function client({ flags = [], redirectUri = CALLBACK, authentication, secret } = {}) {
  registered += 1;
  const scopes = SCOPE.split(' ').flatMap((scope) => ['--scope', scope]);
  const app = await two(['ib', 'create', `openid-client-${registered}`, '--redirect-uri', redirectUri, ...scopes, ...flags]);
  return discovered(app, { authentication, secret });
}

async function discovered(app, { authentication = oauth.ClientSecretBasic, secret } = {}) {
  const given = secret ?? app.client_secret;
  return oauth.discovery(new URL(world.two.public_url), app.client_id, given, authentication(given), { algorithm: 'oauth2' });
}

/** Goes to the authorization endpoint in a browser; gives where it was sent back to, and what the exchange has to check. */
async function asked(config, { redirectUri = CALLBACK, decision } = {}) {
  const pkceCodeVerifier = oauth.randomPKCECodeVerifier();
  const expectedState = oauth.randomState();
  const url = oauth.buildAuthorizationUrl(config, {
    redirect_uri: redirectUri,
    scope: SCOPE,
    state: expectedState,
    code_challenge: await oauth.calculatePKCECodeChallenge(pkceCodeVerifier),
    code_challenge_method: 'S256',
  });
  return { location: await decides(url, redirectUri, decision), checks: { pkceCodeVerifier, expectedState } };
}

/** The whole code flow. The library checks state and issuer. */
async function linked(config, options) {
  const { location, checks } = await asked(config, options);
  return oauth.authorizationCodeGrant(config, location, checks);
}

function call(config, token, path = '/p2pi/orders?x=1') {
  return oauth.fetchProtectedResource(config, token, new URL(world.two.public_url + path), 'GET');
}

/** The status of a call, also of one that the library reports as a challenge. */
async function status(config, token, path) {
  try {
    return (await call(config, token, path)).status;
  } catch (error) {
    if (error instanceof oauth.WWWAuthenticateChallengeError) return error.status;
    throw error;
  }
}

async function refused(code, ask) {
  await assert.rejects(ask, (error) => {
    assert.equal(error.error, code, `${error.error ?? error}, expected ${code}`);
    return true;
  });
}

async function discovery() {
  const config = await client();
  const metadata = config.serverMetadata();
  assert.equal(metadata.issuer, world.two.public_url);
  assert.ok(metadata.supportsPKCE());
  assert.equal(metadata.authorization_response_iss_parameter_supported, true);
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

async function secretInTheForm() {
  const config = await client({ authentication: oauth.ClientSecretPost });
  const token = await linked(config);
  const renewed = await oauth.refreshTokenGrant(config, token.refresh_token);
  assert.equal(await status(config, renewed.access_token), 200);
}

/** This library form-encodes the halves of Basic (RFC 6749 §2.3.1). */
async function awkwardSecret() {
  const awkward = 'per%20cent+plus/=:colon&amp';
  const flags = ['--redirect-uri', CALLBACK, '--scope', 'p2pi', '--scope', 'reports', '--client-secret-stdin'];
  const app = await two(['ib', 'create', 'openid-client-awkward', ...flags], awkward);
  for (const authentication of [oauth.ClientSecretBasic, oauth.ClientSecretPost]) {
    await linked(await discovered(app, { authentication, secret: awkward }));
  }
}

async function refreshWithRotation() {
  const config = await client();
  const seen = [await linked(config)];
  for (let turn = 0; turn < 2; turn += 1) {
    seen.push(await oauth.refreshTokenGrant(config, seen.at(-1).refresh_token));
    assert.equal(await status(config, seen.at(-1).access_token), 200);
  }
  assert.equal(new Set(seen.map((token) => token.refresh_token)).size, 3);
  assert.equal(new Set(seen.map((token) => token.access_token)).size, 3);
}

/** The old refresh token presented again inside the window gets the same successor. */
async function lostAnswer() {
  const config = await client();
  const first = await linked(config);
  const once = await oauth.refreshTokenGrant(config, first.refresh_token);
  const again = await oauth.refreshTokenGrant(config, first.refresh_token);
  assert.equal(once.refresh_token, again.refresh_token);
  assert.equal(once.access_token, again.access_token);
  assert.equal(await status(config, again.access_token), 200);
}

/** Many refreshes of one token at once, as a client without a lock sends them: all get the one successor. */
async function refreshesAtOnce() {
  const config = await client();
  const first = await linked(config);
  const all = await Promise.all(Array.from({ length: 8 }, () => oauth.refreshTokenGrant(config, first.refresh_token)));
  assert.equal(new Set(all.map((token) => token.refresh_token)).size, 1);
  for (const token of all) assert.equal(await status(config, token.access_token), 200);
}

/** One use, and whoever comes with a used one after the race is over ends the grant. */
async function strictRotation() {
  const config = await client({ flags: ['--rotation', 'strict'] });
  const first = await linked(config);
  const second = await oauth.refreshTokenGrant(config, first.refresh_token);
  await refused('invalid_grant', () => oauth.refreshTokenGrant(config, first.refresh_token));
  assert.equal(await status(config, second.access_token), 200);
  await setTimeout(2200);
  await refused('invalid_grant', () => oauth.refreshTokenGrant(config, first.refresh_token));
  await refused('invalid_grant', () => oauth.refreshTokenGrant(config, second.refresh_token));
  assert.equal(await status(config, second.access_token), 401);
}

async function noRotation() {
  const config = await client({ flags: ['--rotation', 'none'] });
  const first = await linked(config);
  for (let turn = 0; turn < 2; turn += 1) {
    const next = await oauth.refreshTokenGrant(config, first.refresh_token);
    assert.equal(next.refresh_token ?? first.refresh_token, first.refresh_token);
    assert.equal(await status(config, next.access_token), 200);
  }
}

async function narrowerScope() {
  const config = await client();
  const token = await linked(config);
  const narrow = await oauth.refreshTokenGrant(config, token.refresh_token, { scope: 'p2pi' });
  assert.equal(narrow.scope, 'p2pi');
  await assert.rejects(call(config, narrow.access_token, '/reports/'), (error) => {
    assert.equal(error.status, 403);
    assert.equal(error.cause[0].scheme, 'bearer');
    assert.equal(error.cause[0].parameters.error, 'insufficient_scope');
    assert.equal(error.cause[0].parameters.scope, 'reports');
    return true;
  });
  const whole = await oauth.refreshTokenGrant(config, narrow.refresh_token);
  assert.equal(whole.scope, SCOPE);
  assert.equal(await status(config, whole.access_token, '/reports/'), 200);
  await refused('invalid_scope', () => oauth.refreshTokenGrant(config, whole.refresh_token, { scope: 'p2pi more' }));
}

async function introspection() {
  const config = await client();
  const token = await linked(config);
  const about = await oauth.tokenIntrospection(config, token.access_token);
  assert.equal(about.active, true);
  assert.equal(about.scope, SCOPE);
  assert.equal(about.client_id, config.clientMetadata().client_id);
  assert.equal(about.sub, world.login);
  assert.deepEqual({ ...(await oauth.tokenIntrospection(await client(), token.access_token)) }, { active: false });
}

async function revocation() {
  const config = await client();
  const token = await linked(config);
  assert.equal(await status(config, token.access_token), 200);
  await oauth.tokenRevocation(config, token.refresh_token);
  await oauth.tokenRevocation(config, token.refresh_token);
  await assert.rejects(call(config, token.access_token), (error) => {
    assert.equal(error.status, 401);
    assert.equal(error.cause[0].parameters.error, 'invalid_token');
    return true;
  });
  assert.equal((await oauth.tokenIntrospection(config, token.access_token)).active, false);
  await refused('invalid_grant', () => oauth.refreshTokenGrant(config, token.refresh_token));
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

async function wrongSecret() {
  for (const authentication of [oauth.ClientSecretBasic, oauth.ClientSecretPost]) {
    const config = await client({ authentication, secret: 'not the secret' });
    const { location, checks } = await asked(config);
    await assert.rejects(oauth.authorizationCodeGrant(config, location, checks), isInvalidClient);
  }
}

/** Basic gets a challenge (RFC 6749 §5.2), which the library reports in place of the document. */
function isInvalidClient(error) {
  assert.equal(error.status, 401);
  if (error instanceof oauth.WWWAuthenticateChallengeError) assert.equal(error.cause[0].scheme, 'basic');
  else assert.equal(error.error, 'invalid_client');
  return true;
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

await play('openid-client', [
  discovery,
  codeFlowAndCall,
  secretInTheForm,
  awkwardSecret,
  refreshWithRotation,
  lostAnswer,
  refreshesAtOnce,
  strictRotation,
  noRotation,
  narrowerScope,
  introspection,
  revocation,
  declined,
  wrongSecret,
  wrongIssuer,
  wrongVerifier,
  replayedCode,
  nativeAppOnAnotherPort,
]);
