// The names that the rest of the provider uses for what is generated.
import type { components } from './schema.js'

type Schemas = components['schemas']

export type Action = Schemas['Action']
export type ErrorAnswer = Schemas['ErrorAnswer']
export type Firewall = Schemas['Firewall']
export type Image = Schemas['Image']
export type Labels = Schemas['Labels']
export type Location = Schemas['Location']
export type Meta = Schemas['Meta']
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
