/** OpenAPI 3.1 of what devices reach (G21). */
import { ROUTES, type RouteName } from '@sealpost/protocol'
import { CONTRACTS } from '../http/contracts.ts'
import { describeRoutes, FORMS, type OpenApi } from './describe-routes.ts'

const TAGS = {
  Server: 'What the server is and how it is.',
  Tokens: 'Who asks: assertions in, tokens out.',
  'Device log': 'The signed list of devices.',
  Devices: 'The devices of the account, and who is connected.',
  Account: 'Figures, export and end of the account.',
  Events: 'Reading, sending and following events without a socket.',
  Pairing: 'The mailbox through which a new device comes in.',
  Documents: 'This document and its companions.',
} as const

const TAG_OF: Record<RouteName, keyof typeof TAGS> = {
  read_server: 'Server',
  read_jwks: 'Tokens',
  append_log: 'Device log',
  read_log: 'Device log',
  create_token: 'Tokens',
  refresh_token: 'Tokens',
  logout: 'Tokens',
  list_devices: 'Devices',
  read_device: 'Devices',
  rename_device: 'Devices',
  revoke_device: 'Devices',
  read_connection_status: 'Devices',
  read_user: 'Account',
  delete_user: 'Account',
  export_user: 'Account',
  read_events: 'Events',
  append_events: 'Events',
  take_session: 'Events',
  follow_events: 'Events',
  put_offer: 'Pairing',
  put_join: 'Pairing',
  put_reveal: 'Pairing',
  put_done: 'Pairing',
  read_slot: 'Pairing',
  live: 'Server',
  ready: 'Server',
  read_openapi: 'Documents',
  read_asyncapi: 'Documents',
  read_docs: 'Documents',
  read_docs_file: 'Documents',
}

export function makeOpenApi(): OpenApi {
  return describeRoutes({
    title: 'Sealpost',
    summary: 'End-to-end encrypted event relay.',
    description: `What a relay offers beside its socket (see \`/asyncapi.json\`). ${FORMS} The server never sees a payload in clear.`,
    token: 'An access token of `create_token`, for 10 minutes.',
    tags: TAGS,
    tagOf: TAG_OF,
    routes: ROUTES,
    contracts: CONTRACTS,
    asks: { assertion: 'a device assertion', token: 'an access token of an active device' },
  })
}
