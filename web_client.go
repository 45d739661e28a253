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
		return orZero(peer)
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
		return orZero(peer)
	}
	return client
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

// nat64 is the prefix of IPv4 addresses that a network translates (RFC 6052 §2.1).
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// plainAddress returns an address without its zone, and an IPv4 address in place of one that is mapped or translated to IPv6.
func plainAddress(address netip.Addr) netip.Addr {
	address = address.Unmap().WithZone("")
	if nat64.Contains(address) {
		bytes := address.As16()
		address = netip.AddrFrom4([4]byte(bytes[12:]))
	}
	return address
}

func (w *website) isProxy(address netip.Addr) bool {
	return slices.ContainsFunc(w.proxies, func(p netip.Prefix) bool { return p.Contains(address) })
}

// isExempt reports whether the connections of a peer are not limited: those of proxies, which all clients share, and of this machine.
func (w *website) isExempt(peer netip.Addr) bool { return peer.IsLoopback() || w.isProxy(peer) }

// orZero returns the zero address for a loopback address.
func orZero(address netip.Addr) netip.Addr {
	if address.IsLoopback() {
		return netip.Addr{}
	}
	return address
}
