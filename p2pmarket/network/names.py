"""Names under which peers serve their streams. A new version of the protocol gets new names."""

SESSIONS = "p2pmarket/1/session"
PARCELS = "p2pmarket/1/parcel"
