"""Active Directory as this package needs it: SPNs, service connection points, and finding them."""
