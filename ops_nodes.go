package main

import "github.com/prometheus/client_golang/prometheus"

var (
	nodeInfo    = metric("node_info", "1, with the name of this node. Only with PostgreSQL, like all metrics of nodes.", "node")
	nodeLeads   = metric("node_leads", "Whether this node leads the others.")
	nodeStandby = metric("node_standby", "Whether this node leaves the link to the XMPP server to another one (--single-link).")
	nodeAlive   = metric("cluster_node_alive", "Whether another node is alive, as this one has heard last.", "node")
	nodeLinked  = metric("cluster_node_linked", "Whether another node is alive and has a link to the XMPP server, as this one has heard last.", "node")
)

// nodeHealth says which node of several answers a health check.
type nodeHealth struct {
	Name    string `json:"name"`
	Leads   bool   `json:"leads"`
	Standby bool   `json:"standby"` // another node has the only link
}

// node returns which node this is; nil if there are no others.
func (m collector) node() *nodeHealth {
	if m.db.shared == nil {
		return nil
	}
	return &nodeHealth{Name: m.db.shared.node, Leads: m.component.registry.Leads(), Standby: m.component.isStandby()}
}

// collectNodes collects the metrics of this node and of the others.
func (m collector) collectNodes(gauge func(d *prometheus.Desc, value float64, labels ...string)) {
	node := m.node()
	if node == nil {
		return
	}
	gauge(nodeInfo, 1, node.Name)
	gauge(nodeLeads, oneIf(node.Leads))
	gauge(nodeStandby, oneIf(node.Standby))
	for _, n := range m.component.registry.cluster.nodes() {
		gauge(nodeAlive, oneIf(n.alive), n.name)
		gauge(nodeLinked, oneIf(n.linked), n.name)
	}
}
