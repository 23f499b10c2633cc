"""The mesh: nodes that probe their links, find the bad ones and route around them.

The pure cores (`probe`, `detect`, `routes`, `schedule`, `echo`, `canary`) know no socket, clock or span;
so do `window`, `features` and `damage`, from which nodes learn what is normal on a link (`judge`). Two
engines carry packets: `udp` on any machine without rights, `babel` with routing daemons in network
namespaces. The plugins (`watch`, `heal`) work on either, through the protocol in `engine`; so do
faults, traffic and the referee (`chaos`), through the one in `plane`.
"""
