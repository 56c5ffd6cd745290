// Mutual TLS (RFC 8705): a client that shows a certificate, and tokens that are bound to it.

import assert from 'node:assert/strict';
import { createHash, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { Agent, request } from 'node:https';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { world } from '../world.mjs';
import { asked, linked, oauth, refused, register } from './registered.mjs';

const CALLED = '/p2pi/orders?x=1';

/** A certificate with its key, as lib/certificates.py made it. */
function identity(name) {
  const file = (end) => readFileSync(join(world.folder, 'certificates', `${name}.${end}`));
  const certificate = new X509Certificate(file('pem'));
  return { name, cert: file('pem'), key: file('key'), certificate, thumbprint: createHash('sha256').update(certificate.raw).digest('base64url') };
}

/** `fetch` over connections that show a certificate, or none. */
function showing(shown) {
  const agent = new Agent(shown ? { cert: shown.cert, key: shown.key } : {});
  return (url, { method, headers, body } = {}) =>
    new Promise((resolve, reject) => {
      const options = { method: method ?? 'GET', headers: Object.fromEntries(new Headers(headers)), agent };
      const sent = request(url, options, (answer) => {
        const { statusCode, rawHeaders } = answer;
        const pairs = rawHeaders.flatMap((name, at) => (at % 2 === 0 ? [[name, rawHeaders[at + 1]]] : []));
        resolve(new Response(Readable.toWeb(answer), { status: statusCode, headers: pairs }));
      });
      sent.on('error', reject);
      sent.end(body?.toString());
    });
}

/** The library's configuration for a client that shows a certificate where two asks for one. */
async function presenting(app, authentication, shown) {
  const options = { algorithm: 'oauth2', [oauth.customFetch]: showing(shown) };
  return oauth.discovery(new URL(world.two.public_url), app.client_id, { use_mtls_endpoint_aliases: true }, authentication, options);
}

/** The status of a call with a certificate, or none, at one of two's URLs. */
async function called(token, shown, url = world.two.mtls_url) {
  const answered = await showing(shown)(url + CALLED, { headers: { Authorization: `Bearer ${token}` } });
  if (answered.status === 401) assert.match(answered.headers.get('WWW-Authenticate'), /^Bearer .*error="invalid_token"/);
  return answered.status;
}

/** The library reports a 401 with a challenge by that, and one without by its document. */
async function refusedAsClient(ask) {
  const error = await ask().then(
    () => assert.fail('it was not refused'),
    (why) => why,
  );
  assert.equal(error.status, 401, `${error}`);
  assert.equal(error.error ?? (await error.response.json()).error, 'invalid_client');
}

/** From the pushed request to the revocation, all with the right certificate; and each endpoint refuses the others. */
async function shows(app, authentication, right, wrong) {
  const config = await presenting(app, authentication, right);
  const aliases = config.serverMetadata().mtls_endpoint_aliases;
  assert.equal(aliases.token_endpoint, `${world.two.mtls_url}/oauth/token`);
  const token = await linked(config, { pushed: true });
  assert.equal(token.token_type, 'bearer');
  assert.equal(await called(token.access_token, right), 200);
  const about = await oauth.tokenIntrospection(config, token.access_token);
  assert.deepEqual(about.cnf, { 'x5t#S256': right.thumbprint });
  for (const other of [...wrong, undefined]) assert.equal(await called(token.access_token, other), 401, other?.name);
  assert.equal(await called(token.access_token, right, world.two.public_url), 401, 'nobody is asked for a certificate there');

  for (const other of [...wrong, undefined]) {
    const imposter = await presenting(app, authentication, other);
    await refusedAsClient(() => oauth.refreshTokenGrant(imposter, token.refresh_token));
    await refusedAsClient(() => oauth.tokenIntrospection(imposter, token.access_token));
    await refusedAsClient(() => oauth.tokenRevocation(imposter, token.refresh_token));
    await refusedAsClient(() => asked(imposter, { pushed: true }));
  }
  const renewed = await oauth.refreshTokenGrant(config, token.refresh_token);
  assert.equal(await called(renewed.access_token, right), 200);
  await oauth.tokenRevocation(config, renewed.refresh_token);
  assert.equal(await called(renewed.access_token, right), 401);
  await refused('invalid_grant', () => oauth.refreshTokenGrant(config, renewed.refresh_token));
}

/** The authority that two believes says who the client is. */
async function certificateOfAnAuthority() {
  const app = await register({ flags: ['--mtls', '--tls-client-auth-subject-dn', 'CN=shop'] });
  assert.equal(app.client_secret ?? null, null);
  await shows(app, oauth.TlsClientAuth(), identity('shop'), ['other', 'stranger', 'own'].map(identity));
}

/** The client has registered the certificate itself. */
async function certificateOfItsOwn() {
  const own = identity('own');
  const key = { ...own.certificate.publicKey.export({ format: 'jwk' }), x5c: [own.certificate.raw.toString('base64')] };
  const file = join(world.folder, 'openid-client-certificate.jwks');
  await writeFile(file, JSON.stringify({ keys: [key] }));
  const app = await register({ flags: ['--mtls', '--auth-method', 'self_signed_tls_client_auth', '--jwks', file] });
  await shows(app, oauth.TlsClientAuth(), own, ['another', 'shop'].map(identity));
}

/** A client with a secret, whose tokens are bound to the certificate that it shows (RFC 8705 §3). */
async function certificateBesideASecret() {
  const app = await register({ flags: ['--mtls'] });
  const config = await presenting(app, oauth.ClientSecretBasic(app.client_secret), identity('another'));
  const token = await linked(config);
  assert.equal(await called(token.access_token, identity('another')), 200);
  for (const other of [identity('own'), undefined]) assert.equal(await called(token.access_token, other), 401);
  // The binding is the access token's: the next one is for the certificate that is shown then.
  const later = await presenting(app, oauth.ClientSecretBasic(app.client_secret), identity('own'));
  const renewed = await oauth.refreshTokenGrant(later, token.refresh_token);
  assert.equal(await called(renewed.access_token, identity('own')), 200);
  assert.equal(await called(renewed.access_token, identity('another')), 401);
}

export const certificates = [certificateOfAnAuthority, certificateOfItsOwn, certificateBesideASecret];
