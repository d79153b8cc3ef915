// A certified identity provider (oidc-provider) with three clients: one for each algorithm, the last without a secret.
// Its port is given; it says `up` when it listens, and ends with its standard input.
import { generateKeyPairSync } from 'node:crypto';
import Provider from 'oidc-provider';

const port = Number(process.argv[2]);
const key = (kind, options, named) => ({
  ...generateKeyPairSync(kind, options).privateKey.export({ format: 'jwk' }),
  use: 'sig',
  ...named,
});
const client = (name, alg, more) => ({
  client_id: name,
  id_token_signed_response_alg: alg,
  redirect_uris: ['https://moa.example.com/auth/oidc/callback'],
  post_logout_redirect_uris: ['https://moa.example.com/'],
  response_types: ['code'],
  grant_types: ['authorization_code'],
  ...more,
});
const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [
    client('rsa', 'RS256', { client_secret: 'a secret: +%' }),
    client('ec', 'ES256', { client_secret: 'another secret', token_endpoint_auth_method: 'client_secret_post' }),
    client('public', 'EdDSA', { token_endpoint_auth_method: 'none' }),
  ],
  jwks: {
    keys: [
      key('rsa', { modulusLength: 2048 }, { kid: 'r', alg: 'RS256' }),
      key('ec', { namedCurve: 'P-256' }, { kid: 'e', alg: 'ES256' }),
      key('ed25519', {}, { kid: 'd' }),
    ],
  },
  enabledJWA: { idTokenSigningAlgValues: ['RS256', 'ES256', 'EdDSA'] },
  clientAuthMethods: process.argv[3].split(','),
  pkce: { required: () => true },
  scopes: ['openid', 'email', 'groups'],
  claims: { openid: ['sub'], email: ['email', 'email_verified'], groups: ['groups'] },
  conformIdTokenClaims: false,
  features: { devInteractions: { enabled: true } },
  async findAccount(context, id) {
    const claims = { sub: id, email: `${id}@example.com`, email_verified: true, groups: ['research'] };
    return { accountId: id, claims: () => claims };
  },
});
provider.listen(port, '127.0.0.1', () => console.log('up'));
process.stdin.on('end', () => process.exit(0)).resume();
