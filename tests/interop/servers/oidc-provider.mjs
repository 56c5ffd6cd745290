// oidc-provider behind TLS, with a resource at /api/ that looks its tokens up in the provider's own store (or, with the other settings,
// checks their signature; with the strict ones also a proof), and an office at /office/ where the tests read the ledger and revoke as an operator does:
// `oidc-provider.mjs SETTINGS`.

import { createHash, generateKeyPairSync, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const settings = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const resolve = createRequire(join(settings.libraries, 'package.json')).resolve;
const library = (name) => import(pathToFileURL(resolve(name)).href);
const { default: Provider } = await library('oidc-provider');
const { calculateJwkThumbprint, EmbeddedJWK, jwtVerify } = await library('jose');

const life = settings.life;
const signing = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const usual = { introspection: { enabled: true }, revocation: { enabled: true } };
// Access tokens that the resource checks by itself (RFC 9068), clients that send their secret in the form, refresh tokens that stay.
const other = {
  resourceIndicators: {
    enabled: true,
    defaultResource: () => settings.resource,
    useGrantedResource: () => true,
    getResourceServerInfo: () => ({
      scope: settings.scope,
      audience: settings.resource,
      accessTokenTTL: life,
      accessTokenFormat: 'jwt',
      jwt: { sign: { alg: 'ES256' } },
    }),
  },
};
// Requests that are pushed (PAR) and tokens that are bound to a key (DPoP), whose every proof carries a nonce of the server's.
const strict = {
  ...usual,
  pushedAuthorizationRequests: { enabled: true, requirePushedAuthorizationRequests: true },
  dPoP: { enabled: true, nonceSecret: randomBytes(32), requireNonce: () => true },
};
const features = { usual, other, strict }[settings.kind];
const provider = new Provider(settings.issuer, {
  scopes: ['openid', 'offline_access', settings.scope],
  cookies: { keys: ['only for tests'] },
  pkce: { required: () => true },
  jwks: { keys: [{ ...signing.privateKey.export({ format: 'jwk' }), alg: 'ES256', use: 'sig' }] },
  clientAuthMethods: [settings.authentication],
  clientDefaults: { id_token_signed_response_alg: 'ES256' },
  rotateRefreshToken: settings.kind !== 'other',
  // Keys at a URL on this host, which it would not look at by itself.
  fetch: (url, { dispatcher, ...options }) => fetch(url, options),
  issueRefreshToken: (ctx, client) => client.grantTypeAllowed('refresh_token'),
  expiresWithSession: () => false,
  findAccount: (ctx, sub) => ({ accountId: sub, claims: () => ({ sub }) }),
  ttl: { AccessToken: life, ClientCredentials: life, RefreshToken: 3600, Grant: 3600, AuthorizationCode: 60, Interaction: 60, Session: 60 },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: true },
    registration: { enabled: true, initialAccessToken: settings.registrationKey },
    ...features,
  },
});

// ── the ledger: what each client got, and which of its refresh tokens would still be taken ──
const ledger = new Map();
const entry = (client) => {
  if (!ledger.has(client)) ledger.set(client, { access: new Set(), refresh: new Set(), grants: new Set() });
  return ledger.get(client);
};
for (const event of ['access_token.saved', 'access_token.issued', 'client_credentials.saved', 'client_credentials.issued']) {
  provider.on(event, (token) => {
    entry(token.clientId).access.add(token.jti);
    if (token.grantId) entry(token.clientId).grants.add(token.grantId);
  });
}
provider.on('refresh_token.saved', (token) => entry(token.clientId).refresh.add(token.jti));

async function live(client) {
  const found = await Promise.all([...entry(client).refresh].map((token) => provider.RefreshToken.find(token)));
  return found.filter((token) => token && !token.consumed).length;
}

/** How many of its access tokens the resource would still take. */
async function liveAccess(client) {
  const { AccessToken, ClientCredentials } = provider;
  const found = await Promise.all([...entry(client).access].map(async (token) => (await AccessToken.find(token)) ?? ClientCredentials.find(token)));
  return found.filter(Boolean).length;
}

/** Its access tokens are gone, as after a flush of the store that keeps them. */
async function forget(client) {
  for (const token of entry(client).access) await provider.AccessToken.adapter.destroy(token);
}

async function revoke(client) {
  for (const grant of entry(client).grants) {
    await provider.AccessToken.revokeByGrantId(grant);
    await provider.RefreshToken.revokeByGrantId(grant);
    await provider.Grant.adapter.destroy(grant);
  }
}

// ── what is not the provider's ──
async function found(bearer) {
  if (settings.kind !== 'other') return (await provider.AccessToken.find(bearer)) ?? provider.ClientCredentials.find(bearer);
  const wanted = { issuer: settings.issuer, audience: settings.resource, typ: 'at+jwt', algorithms: ['ES256'] };
  const verified = await jwtVerify(bearer, signing.publicKey, wanted).catch(() => undefined);
  return verified && { scopes: new Set(verified.payload.scope.split(' ')), accountId: verified.payload.sub, clientId: verified.payload.client_id };
}

/** Two nonces of the resource's own are good at a time, and the next one takes the place of the older. */
const nonces = [randomBytes(16).toString('base64url'), randomBytes(16).toString('base64url')];
if (settings.kind === 'strict') {
  setInterval(() => {
    nonces.unshift(randomBytes(16).toString('base64url'));
    nonces.pop();
  }, (life * 1000) / 2);
}
const proofs = new Set();

/** What is wrong with the proof of a call (RFC 9449 §4.3, §7.1), for a token with that thumbprint; nothing where the proof is good. */
async function unproved(ctx, bearer, thumbprint) {
  const wanted = { typ: 'dpop+jwt', algorithms: ['ES256', 'Ed25519', 'EdDSA', 'PS256'], maxTokenAge: 60, requiredClaims: ['jti'] };
  const proof = await jwtVerify(ctx.get('DPoP'), EmbeddedJWK, wanted).catch(() => undefined);
  if (!proof) return 'invalid_dpop_proof';
  const { htm, htu, ath, jti, nonce } = proof.payload;
  if (!nonces.includes(nonce)) return 'use_dpop_nonce';
  const hash = createHash('sha256').update(bearer).digest('base64url');
  if (htm !== ctx.method || htu !== settings.issuer + ctx.path || ath !== hash || proofs.has(jti)) return 'invalid_dpop_proof';
  proofs.add(jti);
  return (await calculateJwkThumbprint(proof.protectedHeader.jwk)) === thumbprint ? undefined : 'invalid_token';
}

async function resource(ctx) {
  const scheme = settings.kind === 'strict' ? 'DPoP' : 'Bearer';
  const [given, bearer] = ctx.get('Authorization').split(' ');
  const token = bearer && given.toLowerCase() === scheme.toLowerCase() && (await found(bearer));
  const error = bearer && (token ? scheme === 'DPoP' && (await unproved(ctx, bearer, token.jkt)) : 'invalid_token');
  if (error === 'use_dpop_nonce') ctx.set('DPoP-Nonce', nonces[0]);
  if (!token || error) {
    ctx.status = 401;
    ctx.set('WWW-Authenticate', error ? `${scheme} error="${error}"` : scheme);
    ctx.body = { error: error || 'no token' };
  } else if (!token.scopes.has(settings.scope)) {
    ctx.status = 403;
    ctx.body = { error: 'insufficient_scope', has: [...token.scopes] };
  } else {
    ctx.body = { target: ctx.url, subject: token.accountId ?? null, client: token.clientId };
  }
}

provider.use(async (ctx, next) => {
  const [, room, action, client] = ctx.path.split('/');
  if (room === 'api') {
    await resource(ctx);
  } else if (room === 'office' && action === 'ledger') {
    ctx.body = { issued: entry(client).access.size, live: await live(client), live_access: await liveAccess(client) };
  } else if (room === 'office' && (action === 'revoke' || action === 'forget')) {
    await (action === 'revoke' ? revoke(client) : forget(client));
    ctx.status = 204;
  } else {
    await next();
  }
});
provider.on('server_error', (ctx, error) => console.error(error));

const tls = { cert: readFileSync(settings.certificate), key: readFileSync(settings.key) };
createServer(tls, provider.callback()).listen(settings.port, '127.0.0.1');
