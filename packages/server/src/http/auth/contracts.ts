/** Contracts of tokens. */
import { z } from 'zod'
import type { Contract } from '../contract.ts'
import { assertion, count, key } from '../fields.ts'
import { ASSERTION, JWK_X, KID, REFRESH_TOKEN } from '../examples.ts'

const granted = {
  status: 200,
  media: 'application/json',
  schema: z.strictObject({
    access_token: z.string().max(4_096).describe('A JWT (RFC 9068), for `Authorization: Bearer`.'),
    token_type: z.literal('Bearer'),
    expires_in: count.describe('Seconds.'),
    refresh_token: z.string().max(256).describe('Opaque; used up by one refresh.'),
    refresh_expires_in: count.describe('Seconds.'),
  }),
  example: {
    access_token:
      'eyJhbGciOiJFZDI1NTE5IiwidHlwIjoiYXQrand0Iiwia2lkIjoiNl9vSWpFWXRvcXlWVkVEUSJ9.eyJzdWIiOiJpb2pqM1hRSjhaWDlVdHN0UExwZGN3In0.c2ln',
    token_type: 'Bearer',
    expires_in: 600,
    refresh_token: REFRESH_TOKEN,
    refresh_expires_in: 2_592_000,
  },
} as const

export const AUTH_CONTRACTS = {
  create_token: { body: assertion, answer: granted, problems: ['device_revoked', 'suspended'], example: { body: ASSERTION } },
  refresh_token: {
    body: assertion.extend({
      refresh_token: z
        .string()
        .max(256)
        .regex(/^[A-Za-z0-9_-]+$/),
    }),
    answer: granted,
    problems: ['device_revoked', 'suspended', 'invalid_token'],
    example: { body: { ...ASSERTION, refresh_token: REFRESH_TOKEN } },
  },
  logout: { answer: { status: 204, media: 'application/json' }, problems: [] },
  read_jwks: {
    answer: {
      status: 200,
      media: 'application/json',
      schema: z.strictObject({
        keys: z
          .array(
            z.strictObject({
              kty: z.literal('OKP'),
              crv: z.literal('Ed25519'),
              x: key,
              kid: z.string().regex(/^[\w-]{16}$/),
              use: z.literal('sig'),
              alg: z.literal('Ed25519'),
            }),
          )
          .max(64),
      }),
      example: { keys: [{ kty: 'OKP', crv: 'Ed25519', x: JWK_X, kid: KID, use: 'sig', alg: 'Ed25519' }] },
      headers: { 'cache-control': 'How long the keys may be kept.' },
    },
    problems: [],
  },
} as const satisfies Record<string, Contract>
