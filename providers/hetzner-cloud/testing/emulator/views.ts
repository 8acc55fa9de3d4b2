// What the emulator answers with, by the types that are generated for the provider: both sides speak of the same description.
import type { components } from '../../src/api/schema.js'

type Schemas = components['schemas']

export type Action = Schemas['Action']
export type Firewall = Schemas['Firewall']
export type Image = Schemas['Image']
export type Iso = Schemas['Iso']
export type Location = Schemas['Location']
export type Network = Schemas['Network']
export type PlacementGroup = Schemas['PlacementGroup']
export type Pricing = Schemas['Pricing']
export type PrimaryIp = Schemas['PrimaryIp']
export type Server = Schemas['Server']
export type ServerOrder = Schemas['ServerOrder']
export type ServerType = Schemas['ServerType']
export type SshKey = Schemas['SshKey']
export type Volume = Schemas['Volume']
export type VolumeOrder = Schemas['VolumeOrder']
