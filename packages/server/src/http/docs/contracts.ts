/** Contracts of the documents that the relay serves about itself. */
import { z } from 'zod'
import type { Contract } from '../contract.ts'

/** The page and its files run under a policy that lets them load and call this server alone. */
const document = {
  headers: {
    etag: 'Of the document; for If-None-Match.',
    'content-security-policy': 'What the document may load and call.',
    'referrer-policy': 'Always `no-referrer`.',
  },
  conditional: true,
} as const
const headers = z.strictObject({ 'if-none-match': z.string().max(1_024).optional().describe('The etag of what the caller has already.') })
const HAVE = { headers: { 'if-none-match': '"q83vEjRWeJCrze8SNFZ4kA"' } }

export const DOCS_CONTRACTS = {
  read_openapi: {
    headers,
    example: HAVE,
    answer: {
      status: 200,
      media: 'application/json',
      schema: z.looseObject({ openapi: z.literal('3.1.0') }),
      example: { openapi: '3.1.0' },
      ...document,
    },
    problems: ['not_found'],
  },
  read_asyncapi: {
    headers,
    example: HAVE,
    answer: {
      status: 200,
      media: 'application/json',
      schema: z.looseObject({ asyncapi: z.literal('3.0.0') }),
      example: { asyncapi: '3.0.0' },
      ...document,
    },
    problems: ['not_found'],
  },
  read_docs: {
    headers,
    example: HAVE,
    answer: { status: 200, media: 'text/html', example: '<!doctype html>', ...document },
    problems: ['not_found'],
  },
  read_docs_file: {
    headers,
    params: z.strictObject({
      file: z
        .string()
        .regex(/^[a-z0-9.-]{0,64}$/)
        .describe('Its name; without one it is the page.'),
    }),
    answer: { status: 200, media: 'text/javascript', also: ['text/css', 'text/html'], example: '/* a file */', ...document },
    problems: ['not_found'],
    example: { ...HAVE, params: { file: 'swagger-ui-bundle.js' } },
  },
} as const satisfies Record<string, Contract>
