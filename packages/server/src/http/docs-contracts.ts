/** Contracts of the documents that the relay serves about itself. */
import { z } from 'zod'
import type { Contract } from './contract.ts'

const HEADERS = { etag: 'Of the document.', 'cache-control': 'How long it may be kept.' }

export const DOCS_CONTRACTS = {
  read_openapi: {
    answer: {
      status: 200,
      media: 'application/json',
      schema: z.looseObject({ openapi: z.literal('3.1.0') }),
      example: { openapi: '3.1.0' },
      headers: HEADERS,
    },
    problems: ['not_found'],
  },
  read_asyncapi: {
    answer: {
      status: 200,
      media: 'application/json',
      schema: z.looseObject({ asyncapi: z.literal('3.0.0') }),
      example: { asyncapi: '3.0.0' },
      headers: HEADERS,
    },
    problems: ['not_found'],
  },
  read_docs: {
    answer: { status: 200, media: 'text/html', example: '<!doctype html>', headers: HEADERS },
    problems: ['not_found'],
  },
  read_docs_file: {
    params: z.strictObject({ file: z.string().regex(/^[a-z0-9.-]{1,64}$/) }),
    answer: { status: 200, media: 'text/javascript', also: ['text/css'], example: '/* a file */', headers: HEADERS },
    problems: ['not_found'],
    example: { params: { file: 'swagger-ui-bundle.js' } },
  },
} as const satisfies Record<string, Contract>
