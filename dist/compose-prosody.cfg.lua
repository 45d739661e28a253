-- Included by the configuration of Prosody's image. Components can connect from other containers; their port is not published.
Host "*"
component_interfaces = { "*" }
