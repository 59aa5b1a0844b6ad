/** The documents that a relay serves about itself, as `server.ts` gives them. */
import { makeAsyncApi } from '../../../server/src/api/asyncapi.ts'
import { makeOpenApi } from '../../../server/src/api/openapi.ts'

export const documents = { openapi: makeOpenApi, asyncapi: makeAsyncApi }
