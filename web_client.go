package main

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// client returns the address that a request comes from; the zero address for a program on this machine, whose requests are not
// limited. Forwarded addresses are used only if they were written by proxies that the operator trusts, and are never exempt.
func (w *website) client(r *http.Request) netip.Addr {
	remote, err := netip.ParseAddrPort(r.RemoteAddr) // fails for a Unix socket, which only a program on this machine can reach
	peer := plainAddress(remote.Addr())
	if err == nil && !w.isProxy(peer) {
		return limitedPeer(peer)
	}
	var client netip.Addr
	if len(w.proxies) > 0 {
		for _, hop := range slices.Backward(forwardedFor(r.Header)) {
			next, ok := parseHop(hop)
			if !ok {
				break
			}
			if client = next; !w.isProxy(client) {
				break
			}
		}
	}
	if !client.IsValid() {
		return limitedPeer(peer)
	}
	return withoutNAT64(client)
}

// forwardedFor returns the addresses that proxies have written: those of X-Forwarded-For, or else of Forwarded (RFC 7239). Most
// proxies set the former and pass the latter on as the client sent it.
func forwardedFor(header http.Header) (hops []string) {
	if values := header["X-Forwarded-For"]; len(values) > 0 {
		return strings.Split(strings.Join(values, ","), ",")
	}
	values := header["Forwarded"]
	if len(values) == 0 {
		return nil
	}
	// Commas in quotes are not expected, and a quote that a client has opened must not hide what follows.
	for element := range strings.SplitSeq(strings.Join(values, ","), ",") {
		hop := ""
		for pair := range strings.SplitSeq(element, ";") {
			if name, value, _ := strings.Cut(strings.TrimSpace(pair), "="); strings.EqualFold(name, "for") {
				hop = strings.Trim(value, `"`)
			}
		}
		hops = append(hops, hop)
	}
	return hops
}

// parseHop parses an address, with or without a port. IPv6 addresses can have brackets.
func parseHop(hop string) (address netip.Addr, ok bool) {
	hop = strings.TrimSpace(hop)
	if withPort, err := netip.ParseAddrPort(hop); err == nil {
		return plainAddress(withPort.Addr()), true
	}
	if bare, found := strings.CutPrefix(hop, "["); found {
		hop = strings.TrimSuffix(bare, "]")
	}
	address, err := netip.ParseAddr(hop)
	return plainAddress(address), err == nil
}

// plainAddress returns an address without its zone, and an IPv4 address in place of one that is mapped to IPv6, as that of a peer on a
// socket for both is.
func plainAddress(address netip.Addr) netip.Addr { return address.Unmap().WithZone("") }

// nat64 is the list of prefixes of IPv4 addresses that a network translates: the well-known one (RFC 6052 §2.1), and one below which
// networks choose their own (RFC 8215).
var nat64 = []netip.Prefix{netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48")}

// withoutNAT64 returns the IPv4 address to limit in place of a plain address that NAT64 has translated. Only the plain address can be
// exempt or trusted: any IPv4 address can be written into a translated one.
//
// The IPv4 address is in the last 32 bits. With a local prefix of less than 96 bits, which the address does not reveal, it is in other
// places (RFC 6052 §2.2). Then most clients of the translator share the limits of one client.
func withoutNAT64(address netip.Addr) netip.Addr {
	if !slices.ContainsFunc(nat64, func(p netip.Prefix) bool { return p.Contains(address) }) {
		return address
	}
	bytes := address.As16()
	return netip.AddrFrom4([4]byte(bytes[12:]))
}

func (w *website) isProxy(address netip.Addr) bool {
	return slices.ContainsFunc(w.proxies, func(p netip.Prefix) bool { return p.Contains(address) })
}

// isExempt reports whether the connections of a peer are not limited: those of proxies, which all clients share, and of this machine.
func (w *website) isExempt(peer netip.Addr) bool { return peer.IsLoopback() || w.isProxy(peer) }

// limitedPeer returns the address of a peer to limit, the zero address for a loopback address.
func limitedPeer(peer netip.Addr) netip.Addr {
	if peer.IsLoopback() {
		return netip.Addr{}
	}
	return withoutNAT64(peer)
}
